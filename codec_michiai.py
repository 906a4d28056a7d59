"""AudioEncoder: waveform -> one continuous latent per frame, causal and streaming.

Log-mels at 100 Hz, then residual blocks and halvings of the rate down to the frame rate. The latent of a
frame knows the audio up to the frame's last sample and nothing after it.

Shapes: B batch, N samples, M mel frames, T frames, D width, L latent size.
"""

import math

import torch
from torch import Tensor, nn

from .configuration_michiai import MichiAIConfig, exact_div
from .streaming_michiai import CausalConvLast, Exact, StreamState, join_past, name_modules


def mel_scale(hertz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    return torch.where(
        hertz < 1000, hertz * 3 / 200, 15 + 27 * torch.log(hertz.clamp(min=1) / 1000) / math.log(6.4)
    )


def mel_filters(sampling_rate: int, n_fft: int, bins: int) -> Tensor:
    """Triangular filters [n_fft / 2 + 1, bins], each of sum 1, so that a band holds a mean magnitude."""
    hertz = torch.arange(n_fft // 2 + 1) * (sampling_rate / n_fft)
    mels = mel_scale(hertz)
    # not linspace, which stays on the CPU while transformers builds models on the meta device
    centres = torch.arange(1, bins + 1) / (bins + 1) * mels[-1]
    spacing = mels[-1] / (bins + 1)
    # a low filter is at least one FFT bin wide on each side, so none is empty
    width = torch.maximum(spacing, (mels[1:] - mels[:-1]).max().clamp(max=mels[1]))
    triangles = (1 - (mels[:, None] - centres).abs() / width).clamp(min=0)
    return triangles / triangles.sum(0)


class LogMel(Exact):
    """Causal log-mel spectrum: [B, N] -> [B, bins, N / hop]; frame m ends with sample (m + 1) * hop - 1."""

    FLOOR = 1e-2  # about -75 dB of full scale: what lies below is silence

    def __init__(self, sampling_rate: int, n_fft: int, hop: int, bins: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft))
        self.register_buffer("filters", mel_filters(sampling_rate, n_fft, bins))
        self.path = ""

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """Log magnitudes, shifted and scaled to about -2 .. 2."""
        if x.shape[-1] % self.hop:
            raise ValueError(f"{x.shape[-1]} samples were given; expected a multiple of the hop {self.hop}")
        x = join_past(self.path, x, self.n_fft - self.hop, state)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would blur quiet bands
            frames = x.to(self.window.dtype).unfold(-1, self.n_fft, self.hop) * self.window
            spectrum = torch.fft.rfft(frames)
            # `.abs()` takes four times as long on a CPU; the least bit keeps the slope at 0 finite
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            mels = power.add_(1e-20).sqrt_() @ self.filters
            return ((mels + self.FLOOR).log() / 2 + 0.5).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise causal convolution, norm and MLP, [B, T, D] -> [B, T, D] (arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = CausalConvLast(width, width, 7, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        y = self.norm(self.depthwise(x, state))
        return x + self.down(nn.functional.gelu(self.up(y), approximate="tanh"))


class AudioEncoder(nn.Module):
    """Variational encoder. Its latents are normalised: on speech, each dimension has mean 0, deviation 1."""

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        codec = config.codec_config
        hop = exact_div(config.sampling_rate, codec.mel_rate, "samples per mel frame")
        n_halvings = int(math.log2(exact_div(config.frame_size, hop, "mel frames per frame")))
        if hop << n_halvings != config.frame_size:
            n_mels = config.frame_size / hop
            raise ValueError(f"a frame holds {n_mels:g} mel frames; expected a power of two: change mel_rate")
        self.mel = LogMel(config.sampling_rate, codec.n_fft, hop, codec.mel_bins)
        self.input = CausalConvLast(codec.mel_bins, codec.width, 3)
        self.halvings = nn.ModuleList()
        for _ in range(n_halvings):
            blocks = [CausalConvLast(codec.width, codec.width, 2, stride=2)]
            blocks += [ConvNeXtBlock(codec.width) for _ in range(codec.depth)]
            self.halvings.append(nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(codec.width)
        self.output = nn.Linear(codec.width, 2 * codec.latent_dim)
        self.register_buffer("latent_mean", torch.zeros(codec.latent_dim))
        self.register_buffer("latent_std", torch.ones(codec.latent_dim))
        name_modules(self)

    def posterior(self, audio: Tensor, state: StreamState | None = None) -> tuple[Tensor, Tensor]:
        """`audio` [B, N] -> mean and log variance [B, T, L] of the latents, not normalised."""
        x = self.input(self.mel(audio, state).transpose(1, 2).to(self.norm.weight.dtype), state)
        for blocks in self.halvings:
            for block in blocks:
                x = block(x, state)
        mean, logvar = self.output(self.norm(x)).chunk(2, dim=-1)
        return mean, logvar.clamp(-12, 4)

    def forward(self, audio: Tensor, state: StreamState | None = None) -> Tensor:
        """`audio` [B, N], N a multiple of the frame -> normalised latents [B, T, L]."""
        mean, _ = self.posterior(audio, state)
        return (mean - self.latent_mean) / self.latent_std
