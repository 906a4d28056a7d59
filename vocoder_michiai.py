"""Vocoder: latents -> waveform, a causal HiFi-GAN generator that streams without look-ahead.

    latents 12.5 Hz -> transposed convolution -> trunk at 100 Hz
    -> (transposed convolution -> dilated residual blocks of several kernels, averaged) per upsample rate
    -> inverse STFT with a short hop

HiFi-GAN: arXiv 2010.05646; ending it in a short inverse STFT, in place of its last and costliest stages: iSTFTNet,
arXiv 2203.02395.

Shapes: B batch, T time at the rate of the place, C channels, L latent size, N samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .codec_michiai import ConvNeXtBlock
from .configuration_michiai import MichiAIConfig, MichiAIVocoderConfig, exact_div
from .kernels_michiai import Generator
from .streaming_michiai import CausalConvLast, CausalConvTranspose1d, Exact, StreamState, name_modules, overlap_add

SLOPE = 0.1  # of the leaky rectifiers, as in HiFi-GAN


class ResidualBlock(nn.Module):
    """HiFi-GAN's residual block: one convolution (with `pairs`, two) per dilation. [B, T, C] -> [B, T, C]."""

    def __init__(self, channels: int, kernel: int, dilations: list[int], pairs: bool) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            CausalConvLast(channels, channels, kernel, dilation=d) for d in dilations
        )
        self.plain = nn.ModuleList(CausalConvLast(channels, channels, kernel) for _ in dilations if pairs)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        for i, dilated in enumerate(self.dilated):
            y = dilated(F.leaky_relu(x, SLOPE), state)
            if self.plain:
                y = self.plain[i](F.leaky_relu(y, SLOPE), state)
            x = x + y
        return x


class UpsampleStage(nn.Module):
    """Transposed convolution, mean of residual blocks of several kernels: [B, T, C] -> [B, T * rate, C']."""

    def __init__(
        self, inputs: int, channels: int, rate: int, kernels: list[int], dilations: list[int], pairs: bool
    ):
        super().__init__()
        self.upsample = CausalConvTranspose1d(inputs, channels, 2 * rate, rate)
        self.blocks = nn.ModuleList(ResidualBlock(channels, kernel, dilations, pairs) for kernel in kernels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        x = F.leaky_relu(x, SLOPE).transpose(1, 2)
        x = self.upsample(x, state).transpose(1, 2).contiguous()
        return sum(block(x, state) for block in self.blocks) / len(self.blocks)


class InverseSTFTHead(Exact):
    """Log magnitude and phase of short overlapping frames -> waveform, `x` [B, T, C] -> [B, T * hop].

    Frame t starts at sample t * hop and reaches n_fft - hop samples beyond its own hop; what lies there waits
    in the state until the next frames are added. No sample waits for a later frame.
    """

    def __init__(self, channels: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.hop, self.n_overlap = hop, exact_div(n_fft, hop, "istft_n_fft / istft_hop")
        self.n_fft = n_fft
        self.output = CausalConvLast(channels, n_fft + 2, 3)
        self.register_buffer(
            "window", torch.hann_window(n_fft) * (2 / self.n_overlap)
        )  # its overlaps sum to 1
        self.path = ""

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        magnitude, phase = self.output(x, state).to(self.window.dtype).chunk(2, dim=-1)
        spectrum = torch.polar(magnitude.clamp(max=6).exp(), phase)
        frames = torch.fft.irfft(spectrum, self.n_fft) * self.window  # [B, T, n_fft]
        hops = frames.unflatten(-1, (self.n_overlap, self.hop))
        waiting = self.n_overlap - 1
        y = sum(F.pad(hops[:, :, k], (0, 0, k, waiting - k)) for k in range(self.n_overlap))
        return overlap_add(self.path, y.flatten(1), x.shape[1] * self.hop, state)


class Vocoder(nn.Module):
    """Normalised latents [B, T, L] -> waveform [B, T * frame_size]; frame t is made of latents 0 .. t."""

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        vocoder = config.vocoder_config
        hop = exact_div(config.sampling_rate, vocoder.rate, "samples per vocoder trunk step")
        rate = exact_div(config.frame_size, hop, "vocoder trunk steps per frame")
        self.input = CausalConvTranspose1d(config.latent_dim, vocoder.width, 3 * rate, rate)
        self.trunk = nn.ModuleList(ConvNeXtBlock(vocoder.width) for _ in range(vocoder.depth))
        self.norm = nn.LayerNorm(vocoder.width)
        self.stages = nn.ModuleList()
        channels = vocoder.width
        for step, width in zip(vocoder.upsample_rates, vocoder.upsample_widths, strict=True):
            blocks = (vocoder.resblock_kernels, vocoder.resblock_dilations, vocoder.resblock_pairs)
            self.stages.append(UpsampleStage(channels, width, step, *blocks))
            channels, hop = width, exact_div(hop, step, "vocoder hop / upsample rate")
        if hop != vocoder.istft_hop:
            raise ValueError(
                f"upsample_rates {vocoder.upsample_rates} leave {hop} samples; expected istft_hop, {vocoder.istft_hop}"
            )
        self.head = InverseSTFTHead(channels, vocoder.istft_n_fft, hop)
        self.register_buffer("latent_mean", torch.zeros(config.latent_dim))
        self.register_buffer("latent_std", torch.ones(config.latent_dim))
        self.kernel: Generator | None = None  # all before the head in one call; None: layer by layer
        self.path = ""
        name_modules(self)

    def features(self, latents: Tensor, state: StreamState | None = None) -> Tensor:
        """The trunk: latents [B, T, L] -> features [B, T * steps per frame, C]."""
        latents = (latents * self.latent_std + self.latent_mean).to(self.norm.weight.dtype)
        x = self.input(latents.transpose(1, 2), state).transpose(1, 2)
        for block in self.trunk:
            x = block(x, state)
        return self.norm(x)

    def waveform(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """The generator: features of the trunk -> samples [B, N]."""
        for stage in self.stages:
            x = stage(x, state)
        return self._samples(x, state)

    def _samples(self, x: Tensor, state: StreamState | None) -> Tensor:
        """What the last stage made -> samples [B, N]."""
        return self.head(F.leaky_relu(x, SLOPE).to(self.head.output.weight.dtype), state)

    def forward(self, latents: Tensor, state: StreamState | None = None) -> Tensor:
        if self.kernel is None:
            return self.waveform(self.features(latents, state), state)
        memories = StreamState() if state is None else state
        memory = memories.begin(f"{self.path}.memory", lambda: torch.zeros(len(latents), self.kernel.memory()))
        return self._samples(self.kernel(latents * self.latent_std + self.latent_mean, memory), state)


class VocoderModel(PreTrainedModel):
    """The vocoder as a model of its own: `AutoModel.from_pretrained(REPO, subfolder="vocoder")`."""

    config_class = MichiAIVocoderConfig
    main_input_name = "latents"

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__(config)
        self.vocoder = Vocoder(config)
        name_modules(self)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The layers' own initialisation holds; buffers come with the checkpoint."""

    def forward(self, latents: Tensor, state: StreamState | None = None) -> Tensor:
        """Normalised latents [B, T, L] -> waveform [B, T * frame_size] at `config.sampling_rate`."""
        return self.vocoder(latents, state)
