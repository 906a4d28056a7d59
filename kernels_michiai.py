"""Kernels in C++ (`kernels_build_michiai.py`): a few positions through all layers of a transformer in one call, and a frame through
the vocoder in another.

A frame is one to three positions. PyTorch's own operations bring each of them through a layer in some fifty small
steps, of which the reading of the weights, the only work that cannot be spared, is a third. Here a layer is five
loops over the rows of its matrices, shared by the threads, with what lies between them done by each thread for itself.

Activations are quantised on the fly, each position by itself (per-token dynamic quantisation, as in ZeroQuant,
arXiv 2206.01861). Attention goes through the slots that are seen in blocks, with a running maximum, each thread through a part of
them; the parts are put together by their weights (FlashDecoding).

B batch, T positions, M = B T rows, D width, H key-value heads, G query heads per key-value head, F hidden width, P prompt
slots, K slots of the memory, S layers.
"""

import copy
import ctypes
import math
import uuid
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels_build_michiai import library

MOST = 8  # positions per row of a batch that go through all layers in one call; more, as prompts have, go layer by layer
STEERED, HALVING = 12, 20  # numbers in the plan of a steered MLP, and of a halving with the convolution after it
TILE = 32  # columns of a bfloat16 matrix that are multiplied at once


class _Shape(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in ("S", "B", "T", "D", "H", "G", "size", "F", "P", "K")), ("eps", ctypes.c_float),
                ("scaling", ctypes.c_float)]


class _Memory(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("layer", ctypes.c_int64), ("pair", ctypes.c_int64), ("batch", ctypes.c_int64)]

    @classmethod
    def of(cls, memory: Tensor) -> "_Memory":
        """Of a memory [B, S, 2, H, slots, size] whose heads are contiguous."""
        batch, layer, pair, head, slot, one = memory.stride()
        slots, size = memory.shape[4:]
        if memory.dtype != torch.bfloat16 or memory.numel() and (head, slot, one) != (slots * size, size, 1):
            raise ValueError(f"a memory is {memory.dtype} with strides {memory.stride()}; expected bfloat16, each layer's heads contiguous")
        return cls(memory.data_ptr(), layer, pair, batch)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _multiply_int8(x: Tensor, weight: Tensor, scale: Tensor, sums: Tensor, bias: Tensor | None, due: Tensor | None) -> Tensor:
    x, n = x.contiguous(), weight.shape[1]
    y = x.new_empty(*x.shape[:-1], len(weight))
    if due is not None and not due.any():
        return y.zero_()
    sizes = map(ctypes.c_int64, (x.numel() // n, len(weight), n, torch.get_num_threads()))
    library().multiply_int8(*map(_pointer, (x, weight, scale, sums, bias, y)), *sizes)
    return y


def _follow_layers(
    x: Tensor, plan: Tensor, slot: Tensor, seen: Tensor, cos: Tensor, sin: Tensor, prompt: Tensor, memory: Tensor,
    write_prompt: bool, heads: int, hidden: int, eps: float,
) -> Tensor:
    B, T, D = x.shape
    S, _, H, K, size = memory.shape[1:]
    y = x.clone(memory_format=torch.contiguous_format)
    shape = _Shape(S, B, T, D, H, heads // H, size, hidden, prompt.shape[4], K, eps, size**-0.5)
    memories = [ctypes.byref(_Memory.of(part)) for part in (prompt, memory)]
    given = [part.contiguous() for part in (slot, seen, cos, sin)]
    library().follow_layers(
        _pointer(plan), ctypes.byref(shape), _pointer(y), *memories, ctypes.c_int64(write_prompt), *map(_pointer, given),
        ctypes.c_int64(torch.get_num_threads()),
    )
    return y


def _follow_steered(x: Tensor, condition: Tensor, plan: Tensor, eps: float) -> Tensor:
    y, condition, width = x.clone(memory_format=torch.contiguous_format), condition.contiguous(), x.shape[-1]
    sizes = ctypes.c_int64(x.numel() // width), ctypes.c_int64(width), ctypes.c_float(eps), ctypes.c_int64(torch.get_num_threads())
    library().follow_steered(_pointer(plan), ctypes.c_int64(len(plan) // STEERED), _pointer(y), _pointer(condition), *sizes)
    return y


def _halve_rates(x: Tensor, plan: Tensor, memory: Tensor, width: int, eps: float) -> tuple[Tensor, Tensor]:
    B, T, _ = x.shape
    halvings = -(-len(plan) // HALVING)
    x, y, memory = x.contiguous(), x.new_empty(B, T >> halvings, width), memory.clone(memory_format=torch.contiguous_format)
    sizes = (ctypes.c_int64(size) for size in (memory.shape[1], B, T))
    given = _pointer(plan), ctypes.c_int64(halvings), *map(_pointer, (x, y, memory))
    library().halve_rates(*given, *sizes, ctypes.c_float(eps), ctypes.c_int64(torch.get_num_threads()))
    return y, memory


def _generate(x: Tensor, plan: Tensor, memory: Tensor, inner: int, steps: int, width: int) -> Tensor:
    B, T, _ = x.shape
    x, y = x.contiguous(), x.new_empty(B, T * steps, width)
    sizes = (ctypes.c_int64(size) for size in (B, T, torch.get_num_threads()))
    given = _pointer(plan), ctypes.c_int64(inner), _pointer(memory), ctypes.c_int64(memory.shape[1])
    library().generate(*given, _pointer(x), _pointer(y), *sizes)
    return y


# Operators, so that a recorded frame can hold them. Each copy of this module, as the Hub's cache makes them, has its own.
_OPERATORS = torch.library.Library(f"michiai_{uuid.uuid4().hex}", "DEF")
_OPERATORS.define("multiply_int8(Tensor x, Tensor weight, Tensor scale, Tensor sums, Tensor? bias, Tensor? due) -> Tensor")
_OPERATORS.define(
    "follow_layers(Tensor x, Tensor plan, Tensor slot, Tensor seen, Tensor cos, Tensor sin, Tensor(a!) prompt, Tensor(b!) memory, "
    "bool write_prompt, int heads, int hidden, float eps) -> Tensor"
)
_OPERATORS.define("follow_steered(Tensor x, Tensor condition, Tensor plan, float eps) -> Tensor")
_OPERATORS.define("halve_rates(Tensor x, Tensor plan, Tensor memory, int width, float eps) -> (Tensor, Tensor)")
_OPERATORS.define("generate(Tensor x, Tensor plan, Tensor(a!) memory, int inner, int steps, int width) -> Tensor")
_OPERATORS.impl("multiply_int8", _multiply_int8, "CPU")
_OPERATORS.impl("follow_layers", _follow_layers, "CPU")
_OPERATORS.impl("follow_steered", _follow_steered, "CPU")
_OPERATORS.impl("halve_rates", _halve_rates, "CPU")
_OPERATORS.impl("generate", _generate, "CPU")
_ops = getattr(torch.ops, _OPERATORS.ns)


def multiply_int8(
    x: Tensor, weight: Tensor, scale: Tensor, sums: Tensor, bias: Tensor | None = None, due: Tensor | None = None
) -> Tensor:
    """Inputs times the rows of an int8 matrix: float32 [..., N], the bias added.

    Args:
        x: float32 [..., n].
        weight: int8 [N, n].
        scale, bias: of each row, float32 [N].
        sums: of each row's weights, int32 [N].
        due: bool [...], for which inputs; zeros where it is for none. None: for all.
    """
    return _ops.multiply_int8(x, weight, scale, sums, bias, due)


class Planned:
    """Modules whose weights a kernel reads where they lie; `plan` tells it where."""

    def __init__(self, modules: Any) -> None:
        self.modules = modules
        self._plan: Tensor | None = None
        self._held: list[Tensor | int] = []  # what the plan tells of: it stays there even if the modules get other weights

    def __deepcopy__(self, memo: dict) -> Any:
        made = copy.copy(self)
        made.modules = copy.deepcopy(self.modules, memo)
        made.forget()
        return made

    def forget(self) -> None:
        """The weights lie elsewhere now."""
        self._plan, self._held = None, []

    def pack(self) -> None:
        """Bring the weights into the kernel's form, if that is not done."""
        if self._plan is None:
            self._held = [part.detach() if isinstance(part, Tensor) else part for part in self._parts()]
            self._plan = torch.tensor([part.data_ptr() if isinstance(part, Tensor) else part for part in self._held])

    @property
    def plan(self) -> Tensor:
        """Addresses and sizes, int64, in the order of the kernel."""
        self.pack()
        return self._plan

    def _parts(self) -> list[Tensor | int]:
        """Weights and sizes, in that order. Here of layers, tuples of modules: of a norm the weight, of an int8 matrix weight, scale,
        sums and, if there is one, bias.
        """
        values = [getattr(module, name, None) for layer in self.modules for module in layer for name in ("weight", "scale", "sums", "bias")]
        return [value for value in values if value is not None]


class Int8Layers(Planned):
    """A pre-norm transformer (RMSNorm, RoPE, SwiGLU) with int8 matrices, a few positions through all of its layers at once.

    Args:
        layers: of each the norm before attention, the matrices of queries, keys and values side by side and of the output, the norm
            before the feed-forward part, and its matrices, the first two side by side; without biases.
        norm: the one after them.
        heads: of the queries.
        eps: of the norms.
    """

    def __init__(self, layers: list[tuple[nn.Module, ...]], norm: nn.Module, heads: int, eps: float) -> None:
        super().__init__([*layers, (norm,)])
        self.heads, self.eps = heads, eps

    def __call__(
        self, x: Tensor, slot: Tensor, seen: Tensor, cos: Tensor, sin: Tensor, prompt: Tensor, memory: Tensor, write_prompt: bool = False
    ) -> Tensor:
        """Positions `x` [B, T, D] float32 -> [B, T, D].

        Args:
            slot: [B, T] where keys and values are written, in the prompt or in the memory.
            seen: bool [B, T, P + K], which slots a position sees, first those of the prompt; its own always.
            cos, sin: [B, T, 2, size] as `streaming_michiai.rotary_angles` makes them, for what sees the prompt, and for all else.
            prompt, memory: bfloat16 [B, S, 2, H, P or K, size].
        """
        hidden = self.modules[0][5].weight.shape[1]
        return _ops.follow_layers(x, self.plan, slot, seen, cos, sin, prompt, memory, write_prompt, self.heads, hidden, self.eps)


class Int8Steered(Planned):
    """Residual MLPs whose norm is steered by a condition (AdaLN), with int8 matrices: a few positions through all of them at once.

    Args:
        blocks: of each the matrix [3 D, D] that steers, and the MLP's two [D, D], with biases.
        eps: of the norms.
    """

    def __init__(self, blocks: list[tuple[nn.Module, ...]], eps: float) -> None:
        super().__init__(blocks)
        self.eps = eps

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` and its condition, float32 [..., D] -> [..., D]."""
        return _ops.follow_steered(x, condition.expand_as(x), self.plan, self.eps)


class Int8Halvings(Planned):
    """Causal halvings of the rate, residual convolutions of width 3 between them, with int8 matrices.

    Args:
        halvings: of each the matrix [N, 4 C] and, but for the last, what comes after it: a LayerNorm and the two matrices [N, 3 N] and
            [N, N], all with biases.
        eps: of the norms.
    """

    def __init__(self, halvings: list[tuple[nn.Module, ...]], eps: float) -> None:
        super().__init__(halvings)
        self.eps = eps
        widths = [part.weight.shape for part, *_ in halvings]
        self.width = widths[-1][0]
        self.remembered = sum(inputs // 2 for _, inputs in widths) + sum(2 * outputs for outputs, _ in widths[:-1])

    def __call__(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`x` [B, T, C] and the memory [B, remembered], zeros at first, float32 -> [B, T / 2^halvings, width], the new memory."""
        return _ops.halve_rates(x, self.plan, memory, self.width, self.eps)

    def _parts(self) -> list[Tensor | int]:
        parts: list[Tensor | int] = []
        for module in chain.from_iterable(self.modules):
            if isinstance(module, nn.LayerNorm):
                parts += [module.weight, module.bias]
            else:
                parts += [module.weight, module.scale, module.sums, module.bias, module.inputs, len(module.scale)]
        return parts


def _whole(n: int) -> int:
    """`n` up to whole tiles."""
    return -(-n // TILE) * TILE


class Generator(Planned):
    """A vocoder from its latents to what its inverse STFT takes, in one call: bfloat16 factors, float32 sums.

    Args:
        vocoder: a `vocoder_michiai.Vocoder` whose convolutions are matrix products (`packed_michiai.py`).
    """

    def _tiles(self, weight: Tensor) -> Tensor:
        """[N, taps, n] (N and n filled up) as the kernel reads it: bfloat16 [N / 32, taps, n / 32, 2, 16 pairs, 16 rows, 2]."""
        weight = F.pad(weight, (0, -weight.shape[2] % TILE, 0, 0, 0, -weight.shape[0] % TILE))
        N, taps, n = weight.shape
        tiles = weight.view(N // TILE, 2, 16, taps, n // TILE, 16, 2).permute(0, 3, 4, 1, 5, 2, 6)
        return tiles.to(torch.bfloat16).contiguous()

    def _floats(self, values: Tensor) -> Tensor:
        """[..., n], n filled up."""
        return F.pad(values, (0, -values.shape[-1] % TILE)).float().contiguous()

    def _upsampling(self, conv: nn.Module) -> list[Tensor | int]:
        """Rate, pieces, tiles and bias of a transposed convolution."""
        weight = conv.weight.unflatten(0, (conv.stride * conv.pieces, -1))  # [kernel, C', C]
        weight = F.pad(weight, (0, 0, 0, -weight.shape[1] % TILE)).flatten(0, 1)
        return [conv.stride, conv.pieces, self._tiles(weight[:, None]), self._floats(conv.bias)]

    def _residual(self, block: nn.Module) -> list[Tensor | int]:
        """The convolutions of a residual block."""
        steps = [(conv, not block.plain) for conv in block.dilated]
        if block.plain:
            steps = [step for pair in zip(block.dilated, block.plain, strict=True) for step in zip(pair, (False, True), strict=True)]
        row: list[Tensor | int] = [len(steps)]
        for conv, added in steps:
            weight = conv.weight.unflatten(1, (conv.kernel, -1))
            row += [conv.kernel, conv.dilation, int(added), self._tiles(weight), self._floats(conv.bias)]
        return row

    def _parts(self) -> list[Tensor | int]:
        vocoder, kernel = self.modules, self.modules.trunk[0].depthwise.kernel_size[0]
        row = [_whole(vocoder.input.weight.shape[1]), _whole(self.inner), *self._upsampling(vocoder.input)]
        row += [kernel, _whole(vocoder.trunk[0].up.out_features), len(vocoder.trunk)]
        for block in vocoder.trunk:
            row += [self._floats(block.depthwise.weight[:, 0].T), self._floats(block.depthwise.bias)]
            row += [self._floats(block.norm.weight), self._floats(block.norm.bias)]
            for linear in (block.up, block.down):
                row += [self._tiles(linear.weight[:, None]), self._floats(linear.bias)]
        row += [self._floats(vocoder.norm.weight), self._floats(vocoder.norm.bias), len(vocoder.stages)]
        for stage in vocoder.stages:
            row += [_whole(len(stage.upsample.bias)), *self._upsampling(stage.upsample), len(stage.blocks)]
            row += [value for block in stage.blocks for value in self._residual(block)]
        return row

    @property
    def inner(self) -> int:
        """Width of the trunk."""
        return self.modules.norm.weight.shape[0]

    def memory(self) -> int:
        """Floats that a conversation remembers."""
        vocoder = self.modules
        ups = [vocoder.input, *(stage.upsample for stage in vocoder.stages)]
        tails = sum((conv.pieces - 1) * conv.stride * _whole(len(conv.bias)) for conv in ups)
        trunk = sum(block.depthwise.kernel_size[0] - 1 for block in vocoder.trunk) * _whole(self.inner)
        convs = [conv for stage in vocoder.stages for block in stage.blocks for conv in (*block.dilated, *block.plain)]
        return tails + trunk + sum((conv.kernel - 1) * conv.dilation * _whole(len(conv.bias)) for conv in convs)

    def __call__(self, x: Tensor, memory: Tensor) -> Tensor:
        """Latents [B, T, L], as they came from the encoder -> float32 [B, T * steps, C], before the last rectifier.

        Args:
            memory: float32 [B, `memory()`], changed in place; all zeros is the empty past.
        """
        ups = [self.modules.input, *(stage.upsample for stage in self.modules.stages)]
        width = len(ups[-1].bias)
        x = F.pad(x.float(), (0, -x.shape[-1] % TILE))
        return _ops.generate(x, self.plan, memory, self.inner, math.prod(conv.stride for conv in ups), _whole(width))[..., :width]
