"""Light discriminators on magnitude spectra of several window lengths (as UnivNet's, arXiv 2106.07889).

HiFi-GAN's own, on periods and scales of the waveform, cost many times as much; `channels` sets their size.

B batch, N samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1


class SpectrumDiscriminator(nn.Module):
    """Judges each place of one spectrum: [B, N] -> the outputs of all layers, the verdict last."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        convs = [nn.Conv2d(1, channels, (3, 9), padding=(1, 4))]
        convs += [nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), padding=(1, 4)) for _ in range(3)]
        convs += [nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)]
        self.convs = nn.ModuleList(nn.utils.parametrizations.weight_norm(conv) for conv in convs)

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft(x.float().unfold(-1, self.size, self.size // 4) * self.window)
            power = spectrum.real.square() + spectrum.imag.square()
            y = (power + 1e-6).pow(0.15)[:, None]  # magnitude ^ 0.3: quiet bands count
        outputs = []
        for conv in self.convs[:-1]:
            y = F.leaky_relu(conv(y), SLOPE)
            outputs.append(y)
        return [*outputs, self.convs[-1](y)]


class Discriminators(nn.Module):
    """One SpectrumDiscriminator per window length: [B, N] -> a list of their outputs."""

    def __init__(self, sizes: tuple[int, ...] = (1024, 512, 256), channels: int = 16) -> None:
        super().__init__()
        self.parts = nn.ModuleList(SpectrumDiscriminator(size, channels) for size in sizes)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        return [part(x) for part in self.parts]


def discriminator_loss(real: list[list[Tensor]], made: list[list[Tensor]]) -> Tensor:
    """Hinge loss: real audio above 1, made audio below -1."""
    losses = [F.relu(1 - r[-1]).mean() + F.relu(1 + m[-1]).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def generator_losses(real: list[list[Tensor]], made: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """The verdict to be raised, and the relative distance of all inner layers (feature matching)."""
    verdict = torch.stack([-m[-1].mean() for m in made]).mean()
    distances = []
    for real_layers, made_layers in zip(real, made, strict=True):
        for r, m in zip(real_layers[:-1], made_layers[:-1], strict=True):
            r = r.detach()
            distances.append((r - m).abs().mean() / r.abs().mean().clamp(min=1e-4))
    matching = torch.stack(distances).mean()
    return verdict, matching
