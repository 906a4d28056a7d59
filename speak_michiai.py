"""SpeakHead: one continuous audio latent per frame, by rectified flow matching in a single step.

The head is a flow map: a velocity v(x, s, t | h) that carries a point x from time s straight to time t,

    X(x, s, t) = x + (t - s) v(x, s, t | h),        noise at time 0, data at time 1.

Where s = t it is the velocity field of rectified flow (Liu et al., arXiv 2209.03003): v(x_t, t, t) -> data - noise.
Off the diagonal it is taught by Lagrangian self-distillation (Boffi et al., arXiv 2505.18825): d/dt X(x_s, s, t) must be
the velocity at the point reached. So one evaluation, X(noise, 0, 1), is a sample; more steps refine it.

B batch (any leading dimensions), L latent width, D condition width, K noise draws.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_michiai import MichiAIConfig
from .kernels_michiai import Int8Steered

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def flow_map(velocity: Velocity, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """X(x, s, t): `x` [..., L] carried from `start` to `end` [..., 1]."""
    return x + (end - start) * velocity(x, start, end)


def sample(velocity: Velocity, noise: Tensor, steps: int = 1) -> Tensor:
    """Carry `noise` [..., L] to data in `steps` equal jumps; the noise is left as it is."""
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected 1 or more")
    x = noise
    for i in range(steps):
        start = torch.full_like(noise[..., :1], i / steps)
        x = flow_map(velocity, x, start, torch.full_like(start, (i + 1) / steps))
    return x


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1], then a small MLP: [..., 1] -> [..., width]."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        steps = torch.arange(self.features // 2, device=time.device, dtype=torch.float32) / (self.features // 2)
        angles = time.float() * (2 * math.pi) * torch.exp(math.log(100.0) * steps) / 4
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(time.dtype))


class AdaLNBlock(nn.Module):
    """Residual MLP whose normalisation is steered by the condition (DiT, arXiv 2212.09748)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.steer = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.steer(F.silu(condition)).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class SpeakHead(nn.Module):
    """Velocity network over one latent.

    Args:
        config: the whole MichiAIConfig.
    """

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        own, latent, width = config.speak_config, config.latent_dim, config.speak_config.width
        self.condition = nn.Linear(config.text_config.hidden_size, width)
        self.enter = nn.Linear(latent, width)
        self.start = TimeEmbedding(own.time_features, width)
        self.end = TimeEmbedding(own.time_features, width)
        self.blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(own.depth))
        self.kernel: Int8Steered | None = None  # all blocks in one call; None: one by one
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.leave = nn.Linear(width, latent)
        self.jump: Tensor | None = None  # what tells of times 0 and 1, once the weights are final; None: computed anew

    def velocity(self, hidden: Tensor) -> Velocity:
        """The velocity field given the backbone's hidden states [..., D]."""
        condition = self.condition(hidden)
        return lambda x, start, end: self._steered(x, condition + self.start(start) + self.end(end))

    def _steered(self, x: Tensor, steering: Tensor) -> Tensor:
        y = self.enter(x)
        if self.kernel is not None:
            return self.leave(self.norm(self.kernel(y, steering)))
        for block in self.blocks:
            y = block(y, steering)
        return self.leave(self.norm(y))

    def remember_jump(self) -> None:
        """Compute what tells of the times of a single step for good; the weights may not change any more."""
        start = torch.zeros(1, dtype=self.leave.bias.dtype, device=self.leave.bias.device)
        self.jump = self.start(start) + self.end(start + 1)

    def forward(self, hidden: Tensor, noise: Tensor, steps: int = 1) -> Tensor:
        """Hidden states [..., D] and Gaussian noise [..., L] -> latents [..., L]."""
        if steps == 1 and self.jump is not None:
            return noise + self._steered(noise, self.condition(hidden) + self.jump)
        return sample(self.velocity(hidden), noise, steps)


def draw_times(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Times in (0, 1), sigmoid of N(0.4, 1): most of them where the data takes shape."""
    return torch.sigmoid(torch.randn(shape, device=device) + 0.4)


def flow_matching_loss(velocity: Velocity, data: Tensor) -> Tensor:
    """Squared error of the velocity on straight paths from noise to `data` [..., L] -> [..., 1]."""
    noise, time = torch.randn_like(data), draw_times((*data.shape[:-1], 1), data.device)
    predicted = velocity(torch.lerp(noise, data, time), time, time)
    return (predicted.float() - (data - noise)).square().mean(-1, keepdim=True)


def self_distillation_loss(velocity: Velocity, data: Tensor) -> Tensor:
    """Lagrangian self-distillation: |d/dt X(x_s, s, t) - sg v(X(x_s, s, t), t, t)|^2 on `data` [..., L] -> [..., 1]."""
    noise = torch.randn_like(data)
    times = torch.stack([draw_times((*data.shape[:-1], 1), data.device) for _ in range(2)])
    # Half of the jumps start from pure noise, as sampling does, and end anywhere: the derivative pins X(noise, 0, 1) only
    # if it is right all along the way. (Ending all of these at 1 diverged, on one number with two peaks already.)
    whole = torch.rand_like(times[0]) < 0.5
    start = torch.where(whole, 0.0, times.amin(0))
    end = torch.where(whole, torch.rand_like(start), times.amax(0))
    x = torch.lerp(noise, data, start)

    def jump(t: Tensor) -> Tensor:
        return flow_map(velocity, x, start, t)

    reached, speed = torch.func.jvp(jump, (end,), (torch.ones_like(end),))
    with torch.no_grad():
        target = velocity(reached.detach(), end, end)
    return (speed.float() - target.float()).square().mean(-1, keepdim=True)
