"""Layers in the form that PyTorch's CPU kernels are fastest in; each takes the place of a plain one, for
inference only.

int8 matrices for what is bound by memory (`kernels_michiai.py`, or FBGEMM where there is no compiler), convolutions as matrix
products for what is bound by arithmetic.

N outputs, K inputs, B batch, T time, C channels.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels_build_michiai import has_kernels
from .kernels_michiai import multiply_int8
from .streaming_michiai import CausalConvLast, CausalConvTranspose1d, StreamState, join_past, overlap_add

ENGINE = "fbgemm"
VNNI = torch.cpu._is_vnni_supported()
LEVELS = 127 if VNNI else 63  # without VNNI, FBGEMM adds pairs of products in 16 bits: inputs, moved up to be unsigned, have 7 bits there


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest int8 of each row by its own scale: [N, K] -> int8 [N, K], float32 [N]."""
    scale = weight.float().abs().amax(-1).clamp(min=1e-12) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


class Int8Rows(nn.Module):
    """An int8 matrix [N, K] whose rows have a scale each; activations are quantised on the fly, each
    position by itself.

    The state dict holds the plain rows, so it is saved and loaded like any other. Our own kernel multiplies these; for FBGEMM
    `pack` brings them into its layout and lets the plain ones go.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.inputs, self.sums, self._packed = inputs, None, None
        self.weight: Any = nn.Parameter(torch.zeros(outputs, inputs, dtype=torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False) if bias else None

    def pack(self) -> None:
        """Bring the weight, with the bias, into the form that is multiplied."""
        if self.sums is not None or self._packed is not None:
            return
        if has_kernels():
            self.sums = self.weight.data.sum(1, dtype=torch.int32)
        else:
            self.pack_for_fbgemm()

    def pack_for_fbgemm(self) -> None:
        """Bring the weight into FBGEMM's layout, and let the plain rows go."""
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = ENGINE
        try:
            with (
                warnings.catch_warnings()
            ):  # PyTorch means to retire quantised tensors; the kernels have no other entrance yet
                warnings.simplefilter("ignore", UserWarning)
                zero = torch.zeros(len(self.scale), dtype=torch.long)
                rows = torch._make_per_channel_quantized_tensor(self.weight.data, self.scale.data, zero, 0)
            self._packed = torch.ops.quantized.linear_prepack(rows, self.bias)
        finally:
            torch.backends.quantized.engine = before
        self.weight = None

    def product(self, x: Tensor, due: Tensor | None = None) -> Tensor:
        """`x` [..., K] -> float32 [..., N], the bias added.

        Args:
            due: bool [...], for which inputs; where none is, our kernel reads no weight and gives zeros. None: for all.
        """
        if self.sums is not None:
            return multiply_int8(x.float(), self.weight, self.scale, self.sums, self.bias, due)
        if x.numel() == self.inputs:
            return torch.ops.quantized.linear_dynamic(x.float().reshape(1, -1), self._packed, not VNNI).view(*x.shape[:-1], -1)
        # Several positions: each is brought to -1 .. 1 first, so that none changes how another is rounded.
        rows = x.float().flatten(0, -2)
        size = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / size, 1 / LEVELS, LEVELS + 1, self._packed
        )
        y = y * size if self.bias is None else torch.addcmul(self.bias, y - self.bias, size)
        return y.view(*x.shape[:-1], -1)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight is None:
            destination[prefix + "weight"] = torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()


class Int8Linear(Int8Rows):
    """nn.Linear: [..., K] -> [..., N]."""

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x).to(x.dtype)


class Int8Table(Int8Rows):
    """The LLM's embedding table: looked up by tokens, multiplied by what was heard, and shared with the
    LLM's head.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__(width, tokens)
        self.mean = nn.Parameter(torch.zeros(tokens), requires_grad=False)  # of each row, for `greedy_text`
        self.inverse_deviation = nn.Parameter(torch.ones(tokens), requires_grad=False)

    def pack(self) -> None:
        rows = self.weight
        super().pack()
        self.weight = rows  # they stay, to be looked up

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens] * self.scale[tokens].unsqueeze(-1)


class TableHead(nn.Module):
    """The LLM's head where it is its table: [..., D] -> [..., V]."""

    def __init__(self, table: Int8Table) -> None:
        super().__init__()
        self._table = (table,)  # not a submodule: its weights are saved once

    def forward(self, x: Tensor) -> Tensor:
        return self._table[0].product(x).to(x.dtype)


class MatrixConv(nn.Module):
    """CausalConvLast of stride 1 as one matrix product over the kernel's steps laid side by side: [B, T, C]
    -> [B, T, C'].

    At M = T rows the product of the CPU's bfloat16 kernels is faster than their convolution, whose weights
    are brought into another layout in every call.
    """

    def __init__(self, like: CausalConvLast) -> None:
        super().__init__()
        weight = like.weight.data.permute(0, 2, 1).flatten(1)  # [C', kernel * C]
        self.weight, self.bias = nn.Parameter(weight.contiguous(), requires_grad=False), like.bias
        self.kernel, self.dilation, self.path = like.kernel_size[0], like.dilation[0], like.path

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        reach = (self.kernel - 1) * self.dilation
        steps = join_past(self.path, x, reach, state, dim=1).unfold(1, reach + 1, 1)[..., :: self.dilation]
        return F.linear(steps.transpose(2, 3).flatten(2), self.weight, self.bias)  # [B, T, kernel * C]


class MatrixConvTranspose(nn.Module):
    """CausalConvTranspose1d as one matrix product and an overlap-add: [B, C, T] -> [B, C', T * stride]."""

    def __init__(self, like: CausalConvTranspose1d) -> None:
        super().__init__()
        weight = like.weight.data.permute(2, 1, 0).flatten(0, 1)  # [kernel * C', C]
        self.weight, self.bias = nn.Parameter(weight.contiguous(), requires_grad=False), like.bias
        self.stride, self.pieces, self.path = like.stride[0], like.kernel_size[0] // like.stride[0], like.path

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        B, _, T = x.shape
        y = F.linear(x.transpose(1, 2), self.weight).view(B, T, self.pieces, -1)
        # the k-th piece of step t falls on step t + k
        y = sum(F.pad(y[:, :, k], (0, 0, k, self.pieces - 1 - k)) for k in range(self.pieces))
        y = y.view(B, (T + self.pieces - 1) * self.stride, -1).transpose(1, 2)
        return overlap_add(self.path, y, T * self.stride, state) + self.bias[:, None]
