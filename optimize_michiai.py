"""Faster forms of a trained model, for inference only; `model.optimize("cpu-int8")` brings them about.

"cpu-int8": one conversation at a time reads every weight once per frame, so the weights' bytes are the cost. The matrices of
the listen head, the LLM and the speak head become int8 with a scale per row; PyTorch's own FBGEMM kernels multiply them
by activations that are quantised on the fly, each position by itself (per-token dynamic quantisation, as in ZeroQuant,
arXiv 2206.01861). The vocoder is arithmetic rather than memory: it computes in bfloat16. So does the memory of the backbone.

"cuda": bfloat16, and the whole step as one CUDA graph (`graph_michiai.py`).
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .graph_michiai import use_graph
from .listen_michiai import row_statistics
from .streaming_michiai import CausalConvLast

MODES = ("cpu-int8", "cuda")
SMALLEST = 2**14  # weights; what is smaller costs nothing and stays as it is
ENGINE = "fbgemm"
VNNI = torch.cpu._is_vnni_supported()
LEVELS = 127 if VNNI else 63  # without VNNI the kernel adds pairs of products in 16 bits, which must not overflow


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest int8 of each row by its own scale: [N, K] -> int8 [N, K], float32 [N]."""
    scale = weight.float().abs().amax(-1).clamp(min=1e-12) / 127
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


class PackedRows(nn.Module):
    """An int8 matrix [N, K], in FBGEMM's own layout once `pack` was called.

    The state dict holds the plain rows either way: `weight` int8 [N, K] and `scale` float32 [N].
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.weight: Any = nn.Parameter(torch.zeros(outputs, inputs, dtype=torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(outputs), requires_grad=False)
        self._packed: Any = None

    def pack(self, keep: bool = False) -> None:
        """Bring the rows into the kernel's layout; `keep` the plain ones too."""
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = ENGINE
        try:
            with warnings.catch_warnings():  # PyTorch means to retire quantised tensors; the kernels have no other entrance yet
                warnings.simplefilter("ignore", UserWarning)
                zero = torch.zeros(len(self.scale), dtype=torch.long)
                rows = torch._make_per_channel_quantized_tensor(self.weight.data, self.scale.data, zero, 0)
            self._packed = torch.ops.quantized.linear_prepack(rows, None)
        finally:
            torch.backends.quantized.engine = before
        if not keep:
            self.weight = None

    def product(self, x: Tensor) -> Tensor:
        """`x` [..., K] -> float32 [..., N]."""
        if self._packed is None:
            self.pack()
        if x.numel() == self.inputs:
            return torch.ops.quantized.linear_dynamic(x.float(), self._packed, not VNNI)
        # Several positions: each is brought to -1 .. 1 first, so that none changes how another is rounded.
        rows = x.float().flatten(0, -2)
        size = torch.linalg.vector_norm(rows, float("inf"), -1, keepdim=True).clamp(min=1e-12)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(rows / size, 1 / LEVELS, 128, self._packed)
        return (y * size).view(*x.shape[:-1], -1)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.weight is None:
            destination[prefix + "weight"] = torch.ops.quantized.linear_unpack(self._packed)[0].int_repr()


class Int8Linear(PackedRows):
    """nn.Linear with int8 weights: [..., K] -> [..., N]."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return (y if self.bias is None else y + self.bias).to(x.dtype)


class Int8Table(PackedRows):
    """The LLM's embedding table: looked up by tokens, multiplied by what was heard, and shared with the LLM's head."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__(width, tokens)
        self.mean = nn.Parameter(torch.zeros(tokens), requires_grad=False)  # of each row, for `greedy_text`
        self.inverse_deviation = nn.Parameter(torch.ones(tokens), requires_grad=False)

    def pack(self, keep: bool = True) -> None:
        super().pack(keep)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens] * self.scale[tokens].unsqueeze(-1)


class TableHead(nn.Module):
    """The LLM's head where it is its table: [..., D] -> [..., V]."""

    def __init__(self, table: Int8Table) -> None:
        super().__init__()
        self._table = (table,)  # not a submodule: its weights are saved once

    def forward(self, x: Tensor) -> Tensor:
        return self._table[0].product(x).to(x.dtype)


# ---------------------------------------------------------------- a model in int8


def _int8(module: nn.Module) -> nn.Module | None:
    """The int8 form of a module, with its values unless it lies on the meta device; None: it stays."""
    if isinstance(module, nn.Embedding):
        made: PackedRows = Int8Table(module.embedding_dim, module.num_embeddings)
    elif isinstance(module, nn.Linear) and module.weight.numel() >= SMALLEST:
        made = Int8Linear(module.in_features, module.out_features, module.bias is not None)
    else:
        return None
    if not module.weight.is_meta:
        weight, scale = quantise_rows(module.weight.data)
        made.weight.data, made.scale.data = weight, scale
        if isinstance(made, Int8Table):
            mean, inverse = row_statistics(weight.float() * scale[:, None])
            made.mean.data, made.inverse_deviation.data = mean, inverse
        elif made.bias is not None:
            made.bias.data = module.bias.data.float()
    return made


def use_int8(model: Any) -> None:
    """Put int8 modules in place of the matrices of `model`'s listen head, backbone and speak head."""
    llm = model.backbone.language_model
    tied = model.config.tie_word_embeddings
    for part in (model.listen, model.backbone, model.speak_head):
        for parent in list(part.modules()):
            for name, child in list(parent.named_children()):
                made = None if tied and child is llm.lm_head else _int8(child)
                if made is not None:
                    setattr(parent, name, made)
    if tied:
        llm.lm_head = TableHead(llm.get_input_embeddings())
        for holder in (model, llm):
            holder._tied_weights_keys = None  # the head has no weights of its own any more
    model.config.optimized = "cpu-int8"


def prepare(model: Any) -> None:
    """Bring a model that has int8 modules into the form that computes."""
    for module in model.modules():
        if isinstance(module, PackedRows):
            module.pack()
    vocoder = model.vocoder
    for part in (vocoder.input, vocoder.trunk, vocoder.norm, vocoder.stages):  # the head makes samples: it stays float32
        part.to(torch.bfloat16)
    arrange_convolutions(vocoder)
    model.backbone.memory_dtype = torch.bfloat16
    model.requires_grad_(False).eval()


def arrange_convolutions(module: nn.Module) -> None:
    """Lay the weights out as `CausalConvLast` uses them, once instead of in every call; their values stay."""
    for conv in module.modules():
        if isinstance(conv, CausalConvLast) and conv.groups == 1 and not conv.weight.is_meta:
            conv.weight.data = conv.weight.data[:, :, None].contiguous(memory_format=torch.channels_last)[:, :, 0]


def optimize(model: Any, mode: str) -> Any:
    """`model` in a faster form, for inference only; it is changed in place and returned.

    Args:
        mode: "cpu-int8": for one conversation at a time on a CPU. "cuda": on a GPU.
    """
    if mode not in MODES:
        raise ValueError(f"optimize was asked for {mode!r}; expected one of {list(MODES)}")
    if model.config.optimized is not None or model.runner is not None:
        raise ValueError(f"optimize was asked for {mode!r}, but this model is optimised already; expected one as from_pretrained loads it")
    if mode == "cuda":
        return use_graph(model)
    if ENGINE not in torch.backends.quantized.supported_engines:
        raise ValueError(f"optimize was asked for {mode!r}, but this PyTorch has no {ENGINE} kernels; expected an x86 CPU: use the model as it is")
    use_int8(model.cpu().float())
    prepare(model)
    return model
