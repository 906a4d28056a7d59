"""bench kernels: our own and PyTorch's for one position times a matrix, at the 530M's shapes."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from .report import table
from .speed import threads

SHAPES: tuple[tuple[int, int], ...] = (
    (2560, 960),
    (960, 2560),
    (960, 960),
    (2304, 768),
    (1024, 1024),
    (49152, 960),
)  # rows, columns
SPREAD = 96 * 2**20  # weights per shape: several times the largest cache, so that they are read from memory
GROUP = 32  # weights per scale, int4


def _int8(weight: torch.Tensor) -> Any:
    from michiai.packed_michiai import Int8Linear, quantise_rows

    made = Int8Linear(weight.shape[1], weight.shape[0])
    made.weight.data, made.scale.data = quantise_rows(weight)
    return made


def _ours(weight: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    made = _int8(weight)
    made.pack()
    return made


def _fbgemm(weight: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    made = _int8(weight)
    made.pack_for_fbgemm()
    return made


def _int8_weight_only(weight: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    from michiai.packed_michiai import quantise_rows

    rows, scale = quantise_rows(weight)
    return lambda x: torch._weight_int8pack_mm(x.bfloat16(), rows, scale.bfloat16())


def _int4_weight_only(weight: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    codes = (weight * 3 + 8).clamp(0, 15).to(torch.int32)  # the time does not depend on the values
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = torch.ones(weight.shape[1] // GROUP, weight.shape[0], 2, dtype=torch.bfloat16)
    return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), packed, GROUP, scales)


def _plain(dtype: torch.dtype) -> Callable[[torch.Tensor], Callable[[torch.Tensor], Any]]:
    def make(weight: torch.Tensor) -> Callable[[torch.Tensor], Any]:
        cast = weight.to(dtype)
        return lambda x: F.linear(x.to(dtype), cast)

    return make


KERNELS = {
    "float32": _plain(torch.float32),
    "bfloat16": _plain(torch.bfloat16),
    "int8, weights only": _int8_weight_only,
    "int8, ours": _ours,
    "int8, FBGEMM": _fbgemm,
    "int4, weights only": _int4_weight_only,
}


def microseconds(make: Callable, weight: torch.Tensor, repeats: int = 5) -> float:
    """Median time of one product, over as many matrices as do not fit a cache."""
    matrices = [make(weight.clone()) for _ in range(max(1, SPREAD // weight.numel()))]
    x, spent = torch.randn(1, weight.shape[1]), []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for matrix in matrices:
            matrix(x)
        spent.append((time.perf_counter() - began) / len(matrices))
    return sorted(spent[1:])[repeats // 2] * 1e6


@torch.inference_mode()
def run(n_threads: int) -> dict:
    """-> {"microseconds": {shape: {kernel: ...}}}."""
    found: dict[str, dict[str, float]] = {}
    with threads(n_threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows, columns in SHAPES:
            weight = torch.randn(rows, columns)
            found[f"{rows} x {columns}"] = {
                name: microseconds(make, weight) for name, make in KERNELS.items()
            }
    print(f"one position times a matrix, microseconds, {n_threads} thread(s)")
    print(
        table(
            ["shape", *KERNELS],
            [[shape, *(f"{t:.0f}" for t in row.values())] for shape, row in found.items()],
        )
    )
    return {"threads": n_threads, "microseconds": found}
