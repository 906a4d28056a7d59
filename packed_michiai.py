"""Layers whose weights lie in the layout of PyTorch's CPU kernels: int8 matrices (FBGEMM), bfloat16 convolutions (oneDNN).

Each takes the place of a plain layer, for inference only. Its state dict holds the weights in their plain layout, so it is
saved and loaded like any other; `pack` brings them into the kernel's layout and lets the plain ones go.

N outputs, K inputs, B batch, T time, C channels.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .streaming_michiai import CausalConvLast, CausalConvTranspose1d, StreamState, join_past, overlap_add

ENGINE = "fbgemm"
VNNI = torch.cpu._is_vnni_supported()
LEVELS = 127 if VNNI else 63  # without VNNI the kernel adds pairs of products in 16 bits, which must not overflow


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest int8 of each row by its own scale: [N, K] -> int8 [N, K], float32 [N]."""
    scale = weight.float().abs().amax(-1).clamp(min=1e-12) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


class Packed(nn.Module):
    """A layer with one `weight` that can be packed."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight: Any = nn.Parameter(weight, requires_grad=False)
        self._packed: Any = None

    def pack(self) -> None:
        """Bring the weight into the kernel's layout."""
        if self._packed is None:
            self._packed, self.weight = self.packed(self.weight.data), None

    def packed(self, weight: Tensor) -> Any:
        raise NotImplementedError

    def unpacked(self) -> Tensor:
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight is None:
            destination[prefix + "weight"] = self.unpacked()


class Int8Rows(Packed):
    """An int8 matrix [N, K] whose rows have a scale each; activations are quantised on the fly, each position by itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(torch.zeros(outputs, inputs, dtype=torch.int8))
        self.inputs = inputs
        self.scale = nn.Parameter(torch.ones(outputs), requires_grad=False)

    def packed(self, weight: Tensor) -> Any:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = ENGINE
        try:
            with warnings.catch_warnings():  # PyTorch means to retire quantised tensors; the kernels have no other entrance yet
                warnings.simplefilter("ignore", UserWarning)
                zero = torch.zeros(len(self.scale), dtype=torch.long)
                rows = torch._make_per_channel_quantized_tensor(weight, self.scale.data, zero, 0)
            return torch.ops.quantized.linear_prepack(rows, None)
        finally:
            torch.backends.quantized.engine = before

    def unpacked(self) -> Tensor:
        return torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()

    def product(self, x: Tensor) -> Tensor:
        """`x` [..., K] -> float32 [..., N]."""
        self.pack()
        if x.numel() == self.inputs:
            return torch.ops.quantized.linear_dynamic(x.float(), self._packed, not VNNI)
        # Several positions: each is brought to -1 .. 1 first, so that none changes how another is rounded.
        rows = x.float().flatten(0, -2)
        size = torch.linalg.vector_norm(rows, float("inf"), -1, keepdim=True).clamp(min=1e-12)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(rows / size, 1 / LEVELS, 128, self._packed)
        return (y * size).view(*x.shape[:-1], -1)


class Int8Linear(Int8Rows):
    """nn.Linear: [..., K] -> [..., N]."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return (y if self.bias is None else y + self.bias).to(x.dtype)


class Int8Table(Int8Rows):
    """The LLM's embedding table: looked up by tokens, multiplied by what was heard, and shared with the LLM's head."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__(width, tokens)
        self.mean = nn.Parameter(torch.zeros(tokens), requires_grad=False)  # of each row, for `greedy_text`
        self.inverse_deviation = nn.Parameter(torch.ones(tokens), requires_grad=False)

    def pack(self) -> None:
        if self._packed is None:  # the plain rows stay, to be looked up
            self._packed = self.packed(self.weight.data)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens] * self.scale[tokens].unsqueeze(-1)


class TableHead(nn.Module):
    """The LLM's head where it is its table: [..., D] -> [..., V]."""

    def __init__(self, table: Int8Table) -> None:
        super().__init__()
        self._table = (table,)  # not a submodule: its weights are saved once

    def forward(self, x: Tensor) -> Tensor:
        return self._table[0].product(x).to(x.dtype)


class Bf16Linear(Packed):
    """nn.Linear in bfloat16: [..., K] -> [..., N]."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__(like.weight.data.bfloat16())
        self.bias = nn.Parameter(like.bias.data.bfloat16(), requires_grad=False)

    def packed(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight)

    def unpacked(self) -> Tensor:
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        self.pack()
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


class Bf16Conv(Packed):
    """CausalConvLast of stride 1 in bfloat16: [B, T, C] -> [B, T, C']."""

    def __init__(self, like: CausalConvLast) -> None:
        super().__init__(like.weight.data.bfloat16())
        self.bias = nn.Parameter(like.bias.data.bfloat16(), requires_grad=False)
        self.past, self.dilation, self.groups, self.path = (like.kernel_size[0] - 1) * like.dilation[0], like.dilation[0], like.groups, ""

    def packed(self, weight: Tensor) -> Tensor:
        shape = [1, self.groups * weight.shape[1], 1, self.past + 8]  # any time will do
        settings = ((0, 0), (1, 1), (1, self.dilation), self.groups)
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight[:, :, None].contiguous().to_mkldnn(), *settings, shape)

    def unpacked(self) -> Tensor:
        return self._packed.to_dense()[:, :, 0].contiguous()

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        self.pack()
        x = join_past(self.path, x, self.past, state, dim=1).transpose(1, 2)[:, :, None]
        settings = ([0, 0], [1, 1], [1, self.dilation], self.groups)
        y = torch.ops.mkldnn._convolution_pointwise(x, self._packed, self.bias, *settings, "none", [], "")
        return y[:, :, 0].transpose(1, 2)


class Bf16ConvTranspose(Packed):
    """CausalConvTranspose1d in bfloat16, as one matrix product and an overlap-add: [B, C, T] -> [B, C', T * stride]."""

    def __init__(self, like: CausalConvTranspose1d) -> None:
        super().__init__(like.weight.data.bfloat16())
        self.bias = nn.Parameter(like.bias.data.bfloat16(), requires_grad=False)
        self.shape, self.stride, self.path = tuple(like.weight.shape), like.stride[0], ""  # inputs, outputs, kernel

    def packed(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.permute(2, 1, 0).flatten(0, 1).contiguous())

    def unpacked(self) -> Tensor:
        inputs, outputs, kernel = self.shape
        return self._packed.to_dense().view(kernel, outputs, inputs).permute(2, 1, 0).contiguous()

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        self.pack()
        B, _, T = x.shape
        _, outputs, kernel = self.shape
        y = torch.ops.mkldnn._linear_pointwise(x.transpose(1, 2), self._packed, None, "none", [], "")
        pieces = kernel // self.stride
        y = y.view(B, T, pieces, self.stride * outputs)
        total = y.new_zeros(B, T + pieces - 1, self.stride * outputs)
        for k in range(pieces):  # the k-th piece of step t falls on step t + k
            total[:, k : k + T] += y[:, :, k]
        total = total.view(B, -1, outputs).transpose(1, 2)
        return overlap_add(self.path, total, T * self.stride, state) + self.bias[:, None]
