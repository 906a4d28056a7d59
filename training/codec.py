"""Stage 1: audio encoder and vocoder together, a variational autoencoder from waveform to waveform.

    python -m michiai.training.codec --data out/train --speech recordings --out out/codec

The encoder sees whole clips, and the trunk of the vocoder learns all of them through a mel head that only
training has; the expensive waveform is made of a random stretch of each clip. At the end the latents' mean
and deviation are measured and stored, so that everything after this stage sees normalised latents.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from michiai.codec_michiai import AudioEncoder
from michiai.configuration_michiai import MichiAIConfig
from michiai.training.clips import Clips, random_gain
from michiai.training.common import fit, load_part, parser, read_config, save_tensors
from michiai.vocoder.losses import SpectralLoss
from michiai.vocoder_michiai import Vocoder


class Autoencoder(nn.Module):
    """The stage: clips in, losses out. B batch, N samples, T frames."""

    def __init__(self, config: MichiAIConfig, kl_weight: float, wave_frames: int, wave_from: int) -> None:
        super().__init__()
        self.codec, self.vocoder = AudioEncoder(config), Vocoder(config)
        self.mel_head = nn.Linear(config.vocoder_config.width, config.codec_config.mel_bins)
        self.spectral = SpectralLoss(config.sampling_rate)
        self.kl_weight, self.frame_size = kl_weight, config.frame_size
        self.wave_frames, self.wave_from = wave_frames, wave_from

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        audio = random_gain(batch["audio"])
        mean, logvar = self.codec.posterior(audio)
        mean, logvar = mean.float(), logvar.float()
        latents = mean + torch.randn_like(mean) * (logvar / 2).exp()
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum(-1).mean()
        features = self.vocoder.features((latents - self.codec.latent_mean) / self.codec.latent_std)
        aux = (self.mel_head(features).float() - self.codec.mel(audio).transpose(1, 2)).abs().mean()
        if step < self.wave_from:
            return {"loss": 2 * aux + self.kl_weight * kl, "aux_mel": aux, "kl": kl}

        n_frames = audio.shape[1] // self.frame_size
        first = torch.randint(n_frames - self.wave_frames + 1, ()).item()
        steps = features.shape[1] // n_frames
        made = self.vocoder.waveform(features[:, first * steps : (first + self.wave_frames) * steps])
        real = audio[:, first * self.frame_size : (first + self.wave_frames) * self.frame_size]
        warm = self.frame_size // 2  # the stretch begins without its past: do not judge its first half frame
        parts = self.spectral(made[:, warm:], real[:, warm:])
        loss = (
            2 * aux + parts["mel"] + 0.5 * parts["log_magnitude"] + parts["convergence"] + self.kl_weight * kl
        )
        return {"loss": loss, "aux_mel": aux, "kl": kl, **parts}


@torch.no_grad()
def measure_latents(stage: Autoencoder, clips: Clips, n_batches: int = 24) -> None:
    """Store the latents' mean and standard deviation on speech in both parts."""
    means = []
    for step in range(n_batches):
        audio = clips(step, np.random.default_rng([1, step]), 16)["audio"].float() / 32768
        means.append(stage.codec.posterior(audio)[0][:, 4:].flatten(0, 1))
    means = torch.cat(means)
    for part in (stage.codec, stage.vocoder):
        part.latent_mean.copy_(means.mean(0))
        part.latent_std.copy_(means.std(0))


def main(argv: list[str] | None = None) -> None:
    p = parser(__doc__.split("\n")[0], steps=2500, batch=16, lr=1e-3)
    p.add_argument("--width", type=int, help="of the encoder, if it is only to teach a smaller one (training/encoder.py)")
    p.add_argument("--data", type=Path, nargs="+", required=True, help="folders of shards")
    p.add_argument("--speech", type=Path, help="folder of recordings with manifest.jsonl")
    p.add_argument("--seconds", type=float, default=1.6, help="length of a clip")
    p.add_argument(
        "--wave-frames", type=int, default=10, help="frames of each clip of which the waveform is made"
    )
    p.add_argument(
        "--wave-from", type=int, default=0, help="step from which the waveform is made; mels until then"
    )
    p.add_argument("--kl-weight", type=float, default=1.5e-4)
    p.add_argument("--share", type=float, default=0.2, help="part of the clips that comes from --speech")
    p.add_argument("--init", type=Path, help="model.safetensors of an earlier run to start from")
    args: argparse.Namespace = p.parse_args(argv)
    config = read_config(args.config)
    config.codec_config.width = args.width or config.codec_config.width
    torch.manual_seed(args.seed)
    stage = Autoencoder(config, args.kl_weight, args.wave_frames, args.wave_from)
    if args.init:
        load_part(stage, args.init, new=("mel_head",))  # which a released file does not hold
    n_frames = round(args.seconds * config.frame_rate)
    clips = Clips(args.data, n_frames * config.frame_size, config.sampling_rate, args.speech, args.share)
    fit(stage, clips, args, ema=0.998)
    if PartialState().is_main_process:
        load_part(stage.cpu(), args.out / "model.safetensors")  # the average of the weights
        measure_latents(stage, clips)
        save_tensors(args.out / "model.safetensors", stage.state_dict(), step=args.steps)
        print(f"latent deviation {stage.codec.latent_std.min():.3f} to {stage.codec.latent_std.max():.3f}")


if __name__ == "__main__":
    main()
