"""Faster forms of a trained model, for inference only; `model.optimize("cpu-int8")` brings them about.

"cpu-int8": one conversation at a time reads every weight once per frame, so the weights' bytes are the cost.
The matrices of the listen head, the LLM and the speak head become int8 with a scale per row, multiplied by
activations that are quantised on the fly, each position by itself (per-token dynamic quantisation, as in
ZeroQuant, arXiv 2206.01861): by our own kernels (`kernels_michiai.py`), which bring a position through all layers
in one call, or by PyTorch's FBGEMM where there is no C++ compiler. The vocoder is arithmetic rather than memory: its
weights and what its layers hand on are bfloat16, and so is the arithmetic where there are instructions for that. The
audio encoder and the memories of the LLM and the listen head are bfloat16, too.

"cuda": bfloat16, and the whole step as one CUDA graph (`graph_michiai.py`).
"""

import logging
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from .graph_michiai import use_graph
from .kernels_build_michiai import has_kernels
from .kernels_michiai import Generator, Int8Halvings, Int8Layers, Int8Steered, Planned
from .listen_michiai import row_statistics
from .packed_michiai import (
    ENGINE,
    Int8Linear,
    Int8Rows,
    Int8Table,
    MatrixConv,
    MatrixConvTranspose,
    TableHead,
    quantise_rows,
)
from .runner_michiai import TraceRunner, give_back, let_go_of_file
from .streaming_michiai import CausalConvLast, CausalConvTranspose1d, FeedForward

logger = logging.getLogger(__name__)
MODES = ("cpu-int8", "cuda")
NO_INT8 = f"there is no C++ compiler, and this PyTorch has no {ENGINE} kernels"
SMALLEST = 2**14  # weights; what is smaller costs nothing and stays as it is


def _int8(module: nn.Module) -> nn.Module | None:
    """The int8 form of a module, with its values unless it lies on the meta device; None: it stays."""
    if isinstance(module, nn.Embedding):
        made: Int8Rows = Int8Table(module.embedding_dim, module.num_embeddings)
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


def _matrix(module: nn.Module) -> nn.Module | None:
    """A convolution of the vocoder as a matrix product; None: it stays."""
    if isinstance(module, CausalConvLast) and module.groups == 1:
        return MatrixConv(module)
    if isinstance(module, CausalConvTranspose1d) and module.kernel_size[0] % module.stride[0] == 0:
        return MatrixConvTranspose(module)
    return None


class _Rows(nn.Module):
    """Some outputs of joined projections, for transformers' own forward: [..., K] -> [..., last - first]."""

    def __init__(self, attention: nn.Module, first: int, last: int) -> None:
        super().__init__()
        self._attention = (attention,)  # not a submodule: it holds this one
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        return self._attention[0].qkv_proj(x)[..., self.first : self.last]


def _joined(parts: list[nn.Linear]) -> nn.Linear:
    """One layer that computes the outputs of several, side by side."""
    made = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), parts[0].bias is not None, device="meta")
    for name, _ in list(made.named_parameters()):
        setattr(made, name, nn.Parameter(torch.cat([getattr(part, name).data for part in parts]), requires_grad=False))
    return made


def join_projections(llama: nn.Module) -> None:
    """Queries, keys and values of a LlamaModel's layers in one product, the two inputs of an MLP's product in another: each
    brings a position into int8 anew.
    """
    for layer in llama.layers:
        attention, mlp, first = layer.self_attn, layer.mlp, 0
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        attention.qkv_proj = _joined(parts)
        for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
            setattr(attention, name, _Rows(attention, first, first + part.out_features))
            first += part.out_features
        if llama.config.hidden_act == "silu" and not llama.config.mlp_bias:
            with torch.device("meta"):
                layer.mlp = FeedForward(mlp.gate_proj.in_features, mlp.gate_proj.out_features)
            layer.mlp.gate_up, layer.mlp.down = _joined([mlp.gate_proj, mlp.up_proj]), mlp.down_proj


def _replace(
    part: nn.Module, form: Callable[[nn.Module], nn.Module | None], keep: nn.Module | None = None
) -> None:
    """Put `form(layer)` in place of each layer of `part` that has one."""
    for parent in [module for module in part.modules() if module is not keep]:
        for name, child in list(parent.named_children()):
            made = None if child is keep else form(child)
            if made is not None:
                setattr(parent, name, made)


def half_is_fast(device: str) -> bool:
    """Whether bfloat16 products are fast there: on a CPU without instructions for them they take many times as long as float32."""
    return device != "cpu" or torch.cpu._is_avx512_bf16_supported()


def use_int8(model: Any) -> None:
    """Put int8 matrices and convolutions as matrix products in place of the layers of `model`."""
    join_projections(model.backbone.language_model.model)
    llm, vocoder, tied = model.backbone.language_model, model.vocoder, model.config.tie_word_embeddings
    for part in (model.listen, model.backbone, model.speak_head):
        _replace(part, _int8, keep=llm.lm_head if tied else None)
    if tied:
        llm.lm_head = TableHead(llm.get_input_embeddings())
        for holder in (model, llm):
            holder._tied_weights_keys = None  # the head has no weights of its own any more
    _replace(vocoder, _matrix, keep=vocoder.head)
    for part in (vocoder, model.codec):
        for name, child in part.named_children():
            if name not in ("head", "mel"):  # what makes samples, or is made of them, stays float32
                child.to(torch.bfloat16)
    model.config.optimized = "cpu-int8"


# what `Int8Layers` and `Int8Steered` take of a layer
LLAMA_LAYER = attrgetter(
    "input_layernorm", "self_attn.qkv_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_up", "mlp.down"
)
CAUSAL_LAYER = attrgetter(
    "attention_norm", "attention.qkv", "attention.out", "feed_forward_norm", "feed_forward.gate_up", "feed_forward.down"
)


def use_kernels(model: Any) -> None:
    """Let our kernels go through all layers of the LLM, of the listen head, of the speak head and of the vocoder in one call each, as
    far as they are of the kernels' kind: some are too small to be int8, some Llamas have biases.
    """
    llama, transformer = model.backbone.language_model.model, model.listen.transformer
    if all(isinstance(layer.mlp, FeedForward) for layer in llama.layers):
        layers = [LLAMA_LAYER(layer) for layer in llama.layers]
        if _are_int8(layers, bias=False):
            model.backbone.kernel = Int8Layers(layers, llama.norm, llama.config.num_attention_heads, llama.config.rms_norm_eps)
    layers = [CAUSAL_LAYER(layer) for layer in transformer.layers]
    if _are_int8(layers, bias=False):
        transformer.kernel = Int8Layers(layers, transformer.norm, transformer.width // transformer.head_size, transformer.norm.eps)
    blocks = [(block.steer, block.mlp[0], block.mlp[2]) for block in model.speak_head.blocks]
    if _are_int8(blocks, bias=True):
        model.speak_head.kernel = Int8Steered(blocks, model.speak_head.norm.eps)
    refined = [(block.norm, block.inner, block.outer) for block in model.listen.refine]
    halvings = [(halve.linear, *after) for halve, after in zip(model.listen.halve, [*refined, ()], strict=True)]
    if _are_int8(halvings, bias=True):
        model.listen.kernel = Int8Halvings(halvings, refined[0][0].eps if refined else 0.0)
    model.vocoder.kernel = Generator(model.vocoder)
    model.vocoder.kernel.pack()


def _are_int8(layers: list[tuple[nn.Module, ...]], bias: bool) -> bool:
    """Whether all matrices of these layers are int8, with biases or without."""
    matrices = [part for layer in layers for part in layer if isinstance(part, nn.Linear | Int8Linear)]
    return all(isinstance(part, Int8Linear) and (part.bias is not None) == bias for part in matrices)


def prepare(model: Any) -> None:
    """Bring a model that has such layers into the form that computes."""
    for module in model.modules():
        if isinstance(module, Int8Rows):
            module.pack()
    # Loaded values are parts of the file, mapped into memory. What every frame reads is copied, aligned as kernels like it. What only
    # makes voices, or is only looked up row by row, or what a kernel holds in a form of its own, stays there, and no page of it is held
    # before it is read again.
    seldom = {*model.codec.modules()}
    if has_kernels():
        use_kernels(model)
        seldom |= {*model.vocoder.modules()} - {model.vocoder, *model.vocoder.head.modules()}
    else:
        seldom.add(model.backbone.language_model.get_input_embeddings())
        if not half_is_fast("cpu"):
            model.vocoder.float()
    for module in model.modules():
        if module in seldom:
            continue
        for value in module.parameters(recurse=False):
            value.data = value.data.clone()
        for name, value in list(module.named_buffers(recurse=False)):
            setattr(module, name, value.clone())  # not `.data`: a view goes on holding what it was a view of
    let_go_of_file(next(model.codec.parameters()))
    model.backbone.memory_dtype = model.listen.transformer.memory_dtype = torch.bfloat16
    model.requires_grad_(False).eval()
    model.speak_head.remember_jump()
    model.runner = TraceRunner(model)
    give_back()


def begin_anew(model: Any) -> None:
    """Let go of what was found out about where the weights of an optimised model lie."""
    for module in model.modules():
        if isinstance(kernel := getattr(module, "kernel", None), Planned):
            kernel.forget()
    model.runner = type(model.runner)(model)


def arrange_convolutions(module: nn.Module) -> None:
    """Lay the weights out as `CausalConvLast` uses them, once instead of in every call; their values stay."""
    for conv in module.modules():
        if isinstance(conv, CausalConvLast) and conv.groups == 1 and not conv.weight.is_meta:
            conv.weight.data = conv.weight.data[:, :, None].contiguous(memory_format=torch.channels_last)[
                :, :, 0
            ]


def has_int8() -> bool:
    """Whether something here multiplies int8 matrices."""
    return has_kernels() or ENGINE in torch.backends.quantized.supported_engines


def optimize(model: Any, mode: str | None = None) -> Any:
    """`model` in a faster form, for inference only; it is changed in place and returned.

    Args:
        mode: "cpu-int8": int8 weights and recorded frames on a CPU. "cuda": recorded frames on a GPU. None: the one of these that
            belongs to where the model lies; it stays as it is where it is optimised already, or where this machine lacks what it takes.
    """
    optimised = model.config.optimized is not None or model.runner is not None
    if mode is None:
        mode = "cuda" if model.default_voice.is_cuda else "cpu-int8"
        if optimised:
            return model
        if mode == "cpu-int8" and not has_int8():
            logger.warning("the model runs as it is: %s", NO_INT8)
            return model
    if mode not in MODES:
        raise ValueError(f"optimize was asked for {mode!r}; expected one of {list(MODES)}")
    if optimised:
        raise ValueError(
            f"optimize was asked for {mode!r}, but this model is optimised already; "
            "expected one as from_pretrained loads it"
        )
    if mode == "cuda":
        return use_graph(model)
    if not has_int8():
        raise ValueError(f"optimize was asked for {mode!r}, but {NO_INT8}; expected g++ or clang++, or an x86 CPU: use the model as it is")
    use_int8(model.cpu().float())
    prepare(model)
    return model
