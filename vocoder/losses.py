"""Spectral losses of audio reconstruction: magnitudes and mel bands at several resolutions.

B batch, N samples.
"""

import torch
from torch import Tensor, nn

from michiai.codec_michiai import mel_filters

FLOOR = 2e-5  # of a full-scale tone's magnitude: what lies below is silence


class SpectralLoss(nn.Module):
    """Distance of two waveforms [B, N] by their short-time spectra, of several window lengths.

    Per window: mean absolute difference of log-mel bands, of log magnitudes, and spectral convergence (the
    relative error of magnitudes, arXiv 1910.11480), which weighs what is loud.
    """

    def __init__(self, sampling_rate: int, sizes: tuple[int, ...] = (2048, 512, 128), bins: int = 80) -> None:
        super().__init__()
        self.sizes = sizes
        for size in sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window{size}", window / window.sum(), persistent=False)
            filters = mel_filters(sampling_rate, size, min(bins, size // 8))
            self.register_buffer(f"filters{size}", filters, persistent=False)

    def magnitudes(self, x: Tensor, size: int) -> Tensor:
        """[B, N] -> [B, frames, size / 2 + 1]; a full-scale tone has magnitude 0.5."""
        frames = x.unfold(-1, size, size // 4) * getattr(self, f"window{size}")
        spectrum = torch.fft.rfft(frames)
        return (spectrum.real.square() + spectrum.imag.square() + FLOOR**2).sqrt()

    def forward(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Named distances, each a mean over the resolutions: `mel`, `log_magnitude`, `convergence`."""
        sums = {"mel": 0.0, "log_magnitude": 0.0, "convergence": 0.0}
        with torch.autocast(made.device.type, enabled=False):
            for size in self.sizes:
                a, b = (self.magnitudes(x.float(), size) for x in (made, real))
                filters = getattr(self, f"filters{size}")
                sums["mel"] += ((a @ filters).log() - (b @ filters).log()).abs().mean()
                sums["log_magnitude"] += (a.log() - b.log()).abs().mean()
                error = (a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt()
                sums["convergence"] += error.clamp(max=2).mean()
        return {name: value / len(self.sizes) for name, value in sums.items()}
