"""Stage 1b: the vocoder alone, on the frozen encoder: spectral losses first, then against discriminators.

    python -m michiai.vocoder.train --data out/train --codec out/codec/model.safetensors --out out/vocoder
    python -m michiai.vocoder.train --data out/train --codec out/codec/model.safetensors \\
        --vocoder out/vocoder/model.safetensors --adversarial-from 0 --out out/vocoder_gan

Generator and discriminators share one optimizer and one backward pass: the discriminators see the made audio
detached, the generator sees the discriminators' weights detached, so neither gradient reaches the other.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from michiai.codec_michiai import AudioEncoder
from michiai.configuration_michiai import MichiAIConfig
from michiai.training.clips import Clips, random_gain
from michiai.training.common import fit, load_part, parser, read_config
from michiai.training.encoder import load_encoder
from michiai.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from michiai.vocoder.losses import SpectralLoss
from michiai.vocoder_michiai import Vocoder


class VocoderStage(nn.Module):
    """Clips in, losses out. B batch, N samples, T frames."""

    def __init__(
        self, config: MichiAIConfig, codec: AudioEncoder, wave_frames: int, channels: int, adversarial_from: int
    ) -> None:
        super().__init__()
        self.codec, self.vocoder = codec, Vocoder(config)
        self.spectral = SpectralLoss(config.sampling_rate)
        self.discriminators = Discriminators(channels=channels) if adversarial_from >= 0 else None
        self.wave_frames, self.frame_size, self.adversarial_from = (
            wave_frames,
            config.frame_size,
            adversarial_from,
        )

    def reconstruct(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] -> a random stretch of it, made and real, each [B, about wave_frames * frame_size]."""
        with torch.no_grad():
            mean, logvar = self.codec.posterior(audio)
            latents = mean.float() + torch.randn_like(mean.float()) * (logvar.float() / 2).exp()
        features = self.vocoder.features((latents - self.codec.latent_mean) / self.codec.latent_std)
        n_frames = audio.shape[1] // self.frame_size
        first = int(torch.randint(n_frames - self.wave_frames + 1, ()))
        steps = features.shape[1] // n_frames
        made = self.vocoder.waveform(features[:, first * steps : (first + self.wave_frames) * steps])
        real = audio[:, first * self.frame_size : (first + self.wave_frames) * self.frame_size]
        warm = self.frame_size // 2  # the stretch begins without its past: do not judge its first half frame
        return made[:, warm:], real[:, warm:]

    def adversarial(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        frozen = {name: p.detach() for name, p in self.discriminators.named_parameters()}
        verdicts = self.discriminators(real)
        verdict, matching = generator_losses(verdicts, functional_call(self.discriminators, frozen, (made,)))
        judge = discriminator_loss(verdicts, self.discriminators(made.detach()))
        return {"verdict": verdict, "matching": matching, "judge": judge}

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        made, real = self.reconstruct(random_gain(batch["audio"]))
        parts = self.spectral(made, real)
        loss = parts["mel"] + 0.5 * parts["log_magnitude"] + parts["convergence"]
        if self.discriminators is not None and step >= self.adversarial_from:
            parts |= self.adversarial(made.float(), real)
            loss = loss + 0.1 * parts["verdict"] + 0.5 * parts["matching"] + parts["judge"]
        return {"loss": loss, **parts}


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.split("\n")[0], steps=2000, batch=16, lr=8e-4)
    p.add_argument("--data", type=Path, nargs="+", required=True, help="folders of shards")
    p.add_argument("--speech", type=Path, help="folder of recordings with manifest.jsonl")
    p.add_argument("--codec", type=Path, required=True, help="model.safetensors of the codec stage")
    p.add_argument("--vocoder", type=Path, help="weights to go on from; those beside the codec if left out")
    p.add_argument("--seconds", type=float, default=1.6, help="length of a clip")
    p.add_argument(
        "--wave-frames", type=int, default=10, help="frames of each clip of which the waveform is made"
    )
    p.add_argument("--adversarial-from", type=int, default=-1, help="step; -1: no discriminators")
    p.add_argument("--channels", type=int, default=16, help="of the discriminators")
    args = p.parse_args(argv)
    config = read_config(args.config)
    torch.manual_seed(args.seed)
    codec = load_encoder(args.codec, config)
    stage = VocoderStage(config, codec, args.wave_frames, args.channels, args.adversarial_from)
    load_part(stage.vocoder, args.vocoder or args.codec, "vocoder.")
    n_frames = round(args.seconds * config.frame_rate)
    clips = Clips(args.data, n_frames * config.frame_size, config.sampling_rate, args.speech)
    fit(stage, clips, args, ema=0.995)


if __name__ == "__main__":
    main()
