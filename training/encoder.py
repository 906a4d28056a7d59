"""Stage 1c: a small audio encoder that gives a large one's latents; the model folder holds the small one.

    python -m michiai.training.encoder --data RUN/data/train --codec RUN/codec/model.safetensors --out RUN/encoder

The encoder hears nothing in a conversation but the reference of a cloned voice, so its weights are better spent on
listening. The large one still encodes all that the other stages learn from.
"""

from copy import deepcopy
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from michiai.codec_michiai import AudioEncoder
from michiai.configuration_michiai import MichiAIConfig
from michiai.training.clips import Clips, random_gain
from michiai.training.common import fit, load_part, parser, read_config


def load_encoder(path: str | Path, config: MichiAIConfig) -> AudioEncoder:
    """The frozen encoder of a codec stage's file, of whatever width it has."""
    with safe_open(str(path), "pt") as file:
        width = file.get_slice("codec.norm.weight").get_shape()[0]
    own = deepcopy(config)
    own.codec_config.width = width
    encoder = AudioEncoder(own)
    load_part(encoder, path, "codec.")
    return encoder.eval().requires_grad_(False)


class EncoderStage(nn.Module):
    """Clips in, the squared error of normalised latents out."""

    def __init__(self, config: MichiAIConfig, teacher: AudioEncoder) -> None:
        super().__init__()
        self.teacher, self.codec = teacher, AudioEncoder(config)
        self.codec.latent_mean.copy_(teacher.latent_mean)
        self.codec.latent_std.copy_(teacher.latent_std)

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        audio = random_gain(batch["audio"])
        with torch.no_grad():
            mean, logvar = self.teacher.posterior(audio)
        own_mean, own_logvar = self.codec.posterior(audio)
        latent = ((own_mean - mean).float() / self.codec.latent_std).square().mean()
        spread = (own_logvar - logvar).float().square().mean()
        return {"loss": latent + 0.02 * spread, "latent": latent, "spread": spread}


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.split("\n")[0], steps=6000, batch=16, lr=2e-3)
    p.add_argument("--data", type=Path, nargs="+", required=True, help="folders of shards")
    p.add_argument("--speech", type=Path, help="folder of recordings with manifest.jsonl")
    p.add_argument("--share", type=float, default=0.3, help="part of the clips that comes from --speech")
    p.add_argument("--seconds", type=float, default=1.6, help="length of a clip")
    p.add_argument("--codec", type=Path, required=True, help="model.safetensors of the codec stage: the teacher")
    args = p.parse_args(argv)
    config = read_config(args.config)
    torch.manual_seed(args.seed)
    stage = EncoderStage(config, load_encoder(args.codec, config))
    n_frames = round(args.seconds * config.frame_rate)
    clips = Clips(args.data, n_frames * config.frame_size, config.sampling_rate, args.speech, args.share, model_channel=0.5)
    fit(stage, clips, args, ema=0.998)


if __name__ == "__main__":
    main()
