"""Streaming: causal layers and the one object that remembers.

A module holds weights, never memory. Everything that a conversation remembers stands in one `StreamState`,
which every `forward(x, state)` receives last. `state=None` means offline: the same lines, from an empty past.

Two rules make fork, per-row reset and batching trivial:
- every memory has the batch as its first dimension;
- **all zeros is the empty past**, so a row is reset by writing zeros.

Shapes: B batch, C channels, T time (frames or samples), D width, H heads.
"""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kernels_michiai import Int8Layers


class StreamState(dict[str, Tensor]):
    """Everything that one batch of conversations remembers: {module path: tensor [B, ...]}."""

    def begin(self, path: str, empty: Callable[[], Tensor]) -> Tensor:
        """The memory of `path`, made by `empty` where there is none yet."""
        if path not in self:
            self[path] = empty()
        return self[path]

    def fork(self) -> "StreamState":
        """A copy that goes its own way from here."""
        return StreamState({path: memory.detach().clone() for path, memory in self.items()})

    def reset(self, rows: Tensor) -> None:
        """Empty the past of some rows; `rows` is a bool mask [B] or a tensor of row numbers."""
        for path, memory in self.items():
            memory = memory.clone()  # memories may be views of one another's buffers, or inference tensors
            memory[rows] = 0
            self[path] = memory

    def select(self, rows: Tensor) -> "StreamState":
        """The state of some rows only, as a copy; `rows` as in `reset`."""
        return StreamState({path: memory[rows] for path, memory in self.items()})  # indexing by a tensor copies

    @staticmethod
    def join(states: Iterable["StreamState"]) -> "StreamState":
        """One state whose rows are those of all `states`; an empty one counts as one row."""
        states = list(states)
        known = {path: memory for state in states for path, memory in state.items()}
        joined = StreamState()
        for path, example in known.items():
            parts = []
            for state in states:
                n_rows = next((memory.shape[0] for memory in state.values()), 1)
                parts.append(state.get(path, example.new_zeros(n_rows, *example.shape[1:])))
            joined[path] = torch.cat(parts)
        return joined


def name_modules(model: nn.Module) -> None:
    """Give each module its path, the key of its memory. Call it last in the outermost `__init__`."""
    for path, module in model.named_modules():
        module.path = path


def join_past(path: str, x: Tensor, n_past: int, state: StreamState | None, dim: int = -1) -> Tensor:
    """Put the last `n_past` steps (zeros at the start) before `x` along `dim`; remember the new last ones."""
    if n_past <= 0:
        return x
    past = None if state is None else state.get(path)
    if past is None:
        shape = list(x.shape)
        shape[dim] = n_past
        past = x.new_zeros(shape)
    x = torch.cat([past, x], dim=dim)
    if state is not None:  # a copy: a view would keep the whole chunk alive
        state[path] = x.narrow(dim, -n_past, n_past).clone()
    return x


class Exact(nn.Module):
    """Stays float32 where a model becomes bfloat16 or float16: its FFT knows neither, and they would blur quiet bands."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Exact":
        def keep(x: Tensor) -> Tensor:
            changed = fn(x)
            return changed if changed.element_size() >= 4 else x.to(changed.device)

        return super()._apply(keep, recurse)


class CausalConvLast(nn.Conv1d):
    """Conv1d that sees only the past, channels last: `x` [B, T, C], T a multiple of the stride -> [B, T / stride, C'].

    It runs as a Conv2d of height 1 in the channels-last format: the layout that linear layers around it use,
    and on CPUs two to three times as fast to train as Conv1d on [B, C, T].
    """

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        stride, dilation = self.stride[0], self.dilation[0]
        if x.shape[1] % stride:
            raise ValueError(f"{x.shape[1]} steps were given; expected a multiple of the stride {stride}")
        x = join_past(self.path, x, (self.kernel_size[0] - 1) * dilation + 1 - stride, state, dim=1)
        weight = self.weight[:, :, None]
        if self.groups == 1:
            weight = weight.contiguous(memory_format=torch.channels_last)
        x = x.transpose(1, 2)[:, :, None]
        x = F.conv2d(x, weight, self.bias, (1, stride), 0, (1, dilation), self.groups)
        return x[:, :, 0].transpose(1, 2)


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """ConvTranspose1d by overlap-add, nothing from the future. `x` [B, C, T] -> [B, C', T * stride].

    The last kernel - stride output steps of a chunk are incomplete: memory, added to the next chunk.
    """

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        y = F.conv_transpose1d(x, self.weight, None, self.stride, groups=self.groups)
        y = overlap_add(self.path, y, x.shape[-1] * self.stride[0], state)
        return y if self.bias is None else y + self.bias[:, None]


def overlap_add(path: str, y: Tensor, n_out: int, state: StreamState | None) -> Tensor:
    """Add the remembered tail to the first steps of `y` [..., n_out + tail]; keep the new tail back."""
    n_tail = y.shape[-1] - n_out
    if state is None or n_tail <= 0:
        return y[..., :n_out]
    if path in state:
        y = y + F.pad(state[path], (0, n_out))
    state[path] = y[..., n_out:].clone()
    return y[..., :n_out]


def rotary_angles(positions: Tensor, size: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., size] of rotary position embedding (RoPE, arXiv 2104.09864), as `rotate` takes them.

    Angles are formed in float64: in float32 the fastest one would be wrong by 0.06 rad after a day of frames.
    """
    powers = torch.arange(0, size, 2, device=positions.device, dtype=torch.float64) / size
    angles = positions[..., None].double() * base**-powers
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves of the last dimension of `x` [..., size] by angles; the sines of the first half are negative."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def turns_of_qkv(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, T, size] as `CausalAttention` takes them: of queries, keys and values, which are not turned."""
    cos = torch.stack([cos, cos, torch.ones_like(cos)])[:, :, None]
    return cos, torch.stack([sin, sin, torch.zeros_like(sin)])[:, :, None]


@dataclass
class Ring:
    """Where the positions of this call stand in a ring of the newest ones, and what each of them sees."""

    rows: Tensor  # [B, 1]
    slots: Tensor  # [B, T]
    mask: Tensor  # [B, 1, T, ring + T], for one position (written before it is read) [B, 1, 1, ring]


def enter_ring(start: Tensor, T: int, window: int) -> Ring:
    """Positions `start` [B] .. `start` + T - 1, each of which sees itself and the `window` - 1 before it."""
    steps = torch.arange(T, device=start.device)
    queries, slots = start[:, None] + steps, torch.arange(window, device=start.device)
    newest = start[:, None] - (1 if T > 1 else 0)
    keys = newest - (newest - slots) % window  # the position that stands in each slot; below 0: none yet
    if T > 1:
        keys = torch.cat([keys, queries], dim=1)
    age = queries[:, :, None] - keys[:, None]
    mask = (age >= 0) & (age < window) & (keys >= 0)[:, None]
    return Ring(torch.arange(len(start), device=start.device)[:, None], queries % window, mask[:, None])


Step = Callable[[nn.Module, Tensor, list[Tensor], list[Tensor]], Tensor]


def one_by_one(step: Step, layers: nn.ModuleList, x: Tensor, shared: list[Tensor], memory: list[Tensor]) -> Tensor:
    """`x` through layers that differ in nothing but their weights and memories.

    Args:
        step: a layer: (layer, x, shared, its own memory, which it changes in place) -> x.
        shared: what all layers get.
        memory: of all layers, [B, layers, ...] each.
    """
    for index, layer in enumerate(layers):
        x = step(layer, x, shared, [part[:, index] for part in memory])
    return x


# How streaming goes through such layers: a recorder (`runner_michiai.py`) puts a loop in place that holds one of them only.
through: ContextVar[Callable[..., Tensor]] = ContextVar("through", default=one_by_one)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention [B, H, T, size]; `mask` bool [..., T, K], True where a key is seen, None: plainly causal."""
    if query.is_cuda or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
    # In training on a CPU, in bfloat16, this takes a quarter of the time that the other's kernel and its derivative take.
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    unseen = scores.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))
    return (scores + unseen).softmax(-1) @ value


class CausalAttention(nn.Module):
    """Self attention over the last `window` positions; memory: a ring [B, 2 (key, value), H, window, D /
    H].
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width {width} was given; expected a multiple of twice the {heads} heads")
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, ring: Ring | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """`x` [B, T, D] -> [B, T, D].

        Args:
            cos, sin: of queries, keys and values [3, B or 1, 1, T, D / H]; the values' turn is none.
            mask: offline, [1, 1, T, T] or None for plainly causal.
            ring, memory: streaming, where the positions stand, and keys and values [B, 2, H, window, D / H], written in place.
        """
        B, T, D = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        qkv = rotate(qkv, cos.to(qkv.dtype), sin.to(qkv.dtype))  # keys are remembered rotated
        if ring is None:
            y = attend(*qkv, mask)
        else:
            qkv = qkv.to(memory.dtype)
            y = attend(qkv[0], *self._past(qkv[1:].transpose(0, 1), memory, ring).unbind(1), ring.mask)
        return self.out(y.transpose(1, 2).reshape(B, T, D).to(x.dtype))

    def _past(self, new: Tensor, memory: Tensor, ring: Ring) -> Tensor:
        """Keys and values to attend to, in any order; the newest of `new` [B, 2, H, T, D / H] are
        remembered.
        """
        seen = torch.cat([memory, new], dim=3) if new.shape[3] > 1 else memory
        memory[ring.rows, :, :, ring.slots[:, -self.window :]] = new[:, :, :, -self.window :].permute(
            0, 3, 1, 2, 4
        )
        return seen


class FeedForward(nn.Module):
    """SwiGLU: silu(a) * b, [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class CausalLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, window: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.attention = CausalAttention(width, heads, window)
        self.feed_forward_norm = nn.RMSNorm(width, eps=1e-5)
        self.feed_forward = FeedForward(width, hidden)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, ring: Ring | None = None, memory: Tensor | None = None
    ) -> Tensor:
        """Arguments as of `CausalAttention`."""
        x = x + self.attention(self.attention_norm(x), cos, sin, mask, ring, memory)
        return x + self.feed_forward(self.feed_forward_norm(x))

    def follow(self, x: Tensor, shared: list[Tensor], own: list[Tensor]) -> Tensor:
        """`forward` of positions that follow those of a memory, as of `through`."""
        cos, sin, rows, slots, mask = shared
        return self(x, cos, sin, None, Ring(rows, slots, mask), own[0])


class CausalTransformer(nn.Module):
    """Transformer (RMSNorm, RoPE, SwiGLU) in which a position sees itself and the `window` - 1 before it.

    Offline uses the same window, so streaming equals offline for any length, in constant memory.
    The only thing that grows is a count of positions, an integer [B].
    """

    def __init__(self, width: int, layers: int, heads: int, window: int) -> None:
        super().__init__()
        hidden = 32 * round(width * 8 / 3 / 32)
        self.width, self.head_size, self.window = width, width // heads, window
        self.layers = nn.ModuleList(CausalLayer(width, heads, window, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.memory_dtype: torch.dtype | None = None  # of keys and values; None: that of the activations
        self.kernel: Int8Layers | None = None  # a position through all layers and the norm in one call; None: one by one
        self.path = ""

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """`x` [B, T, D] with T >= 1 -> [B, T, D]."""
        B, T, _ = x.shape
        steps = torch.arange(T, device=x.device)
        start = steps.new_zeros(1) if state is None else state.begin(self.path, lambda: steps.new_zeros(B))
        cos, sin = rotary_angles(start[:, None] + steps, self.head_size)
        if state is not None:
            state[self.path] = start + T
            return self._stream(x, cos, sin, enter_ring(start, T, self.window), self._memory(x, state))
        cos, sin = turns_of_qkv(cos, sin)
        mask = None
        if T > self.window:
            age = steps[:, None] - steps
            mask = ((age >= 0) & (age < self.window))[None, None]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)

    def _stream(self, x: Tensor, cos: Tensor, sin: Tensor, ring: Ring, memory: Tensor) -> Tensor:
        """Positions that follow those of `memory`; cosines and sines [B, T, D / H]."""
        if self.kernel is not None and x.shape[1] == 1:
            turns = (part[:, :, None].expand(-1, -1, 2, -1) for part in (cos, sin))
            return self.kernel(x, ring.slots, ring.mask[:, 0], *turns, memory[:, :, :, :, :0], memory)
        shared = [*turns_of_qkv(cos, sin), ring.rows, ring.slots, ring.mask]
        return self.norm(through.get()(CausalLayer.follow, self.layers, x, shared, [memory]))

    def _memory(self, x: Tensor, state: StreamState) -> Tensor:
        """Keys and values of all S layers [B, S, 2, H, window, D / H]."""
        shape = len(x), len(self.layers), 2, self.width // self.head_size, self.window, self.head_size
        return state.begin(f"{self.path}.memory", lambda: x.new_zeros(shape, dtype=self.memory_dtype or x.dtype))
