"""One position of a Llama, lean: the same weights as transformers' modules, memory written in place.

transformers' own forward builds masks, caches and position tables for every call and sees the past as one
tensor that is put together anew; for a single position that costs more than its arithmetic. Here the past
stays where it is, and that the prompt moves along with the conversation (see `backbone_michiai.py`) is a
turn of the query instead of all keys.

B batch, S layers, H key-value heads, G query heads per key-value head, D width, P prompt slots, N ring slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .streaming_michiai import rotary_angles


def layers_first(memory: Tensor) -> Tensor:
    """`memory` [B, S, 2, H, N, head] laid out in the order S, 2, B, H, N, head: each layer's keys are then
    one batch of matrices for every B. A memory that is so already is returned as it is."""
    if memory.movedim(0, 2).is_contiguous():
        return memory
    return memory.movedim(0, 2).contiguous().movedim(2, 0)


def empty_memory(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros [B, S, 2, H, N, head] in that layout."""
    batch, layers, pair, *rest = shape
    return like.new_zeros(layers, pair, batch, *rest).movedim(2, 0)


@dataclass
class Past:
    """What one position sees of its past; the same for all layers."""

    memory: Tensor  # [B, S, 2, H, P + N, head], written in place
    n_prompt: int  # P
    rows: Tensor  # [B] 0 .. B - 1
    slot: Tensor  # [B] of the memory, where this position is written
    mask: Tensor | None  # [B, 1, 1, P + N], added to the scores; None: all is visible
    cos: Tensor  # [B, 2, 1, head] of this position as the ring sees it, and as the prompt does
    sin: Tensor  # the same, its first half negative


def look_back(
    memory: Tensor, prompt_length: Tensor, ring_position: Tensor, count: Tensor, base: float
) -> Past:
    """The past of position `count` [B]; marks its slot in `ring_position` [B, N] as taken (stored + 1: 0 is
    empty).
    """
    n_ring, size = ring_position.shape[1], memory.shape[5]
    n_prompt = memory.shape[4] - n_ring
    rows = torch.arange(len(count), device=count.device)
    since = count - prompt_length
    slot = since % n_ring
    ring_position.index_put_((rows, slot), count + 1)
    prompted = torch.arange(n_prompt, device=count.device) < prompt_length[:, None]
    seen = torch.cat([prompted, ring_position > 0], 1)
    mask = None
    if (
        count.is_cuda or torch.jit.is_tracing() or not bool(seen.all())
    ):  # to ask a GPU would be to wait for it
        mask = torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, float("-inf"))[:, None, None]
    near = count - (since - (n_ring - 1)).clamp(
        min=0
    )  # the distance to the prompt stops growing once the ring is full
    cos, sin = rotary_angles(torch.stack([count, near], 1), size, base)
    cos, sin = torch.cat([cos, cos], -1)[:, :, None], torch.cat([-sin, sin], -1)[:, :, None]
    return Past(memory, n_prompt, rows, slot + n_prompt, mask, cos, sin)


def _attend(attention: nn.Module, x: Tensor, past: Past, layer: int) -> Tensor:
    """LlamaAttention of one position: `x` [B, D] -> [B, D]."""
    B, H, size = len(x), past.memory.shape[3], past.memory.shape[5]
    query, key, value = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    both = torch.cat([query * attention.scaling, key], -1).view(B, 1, -1, size)
    both = torch.addcmul(both * past.cos, both.roll(size // 2, -1), past.sin).to(
        past.memory.dtype
    )  # [B, 2, heads, head]
    memory = past.memory[:, layer]
    memory[past.rows, :, :, past.slot] = torch.stack(
        [both[:, 0, -H:], value.view(B, H, size).to(both.dtype)], 1
    )
    query = both[:, :, :-H].reshape(B, 2, H, -1, size).transpose(1, 2).flatten(2, 3)  # [B, H, 2 G, head]
    keys, values = (part.flatten(0, 1) for part in memory.unbind(1))
    # All keys are multiplied by both queries (they are read once), then each part keeps its own.
    ring, prompt = torch.bmm(query.flatten(0, 1), keys.transpose(1, 2)).chunk(2, 1)  # [B * H, G, P + N]
    scores = torch.cat([prompt[:, :, : past.n_prompt], ring[:, :, past.n_prompt :]], -1)
    if past.mask is not None:
        scores = (scores.unflatten(0, (B, H)) + past.mask).flatten(0, 1)
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return attention.o_proj(torch.bmm(weights, values).view(B, -1).to(x.dtype))


def decode(llama: nn.Module, x: Tensor, past: Past) -> Tensor:
    """LlamaModel of one position: `x` [B, D] -> hidden states [B, D]; its keys and values are written to the
    ring.
    """

    def norm(module: nn.Module, x: Tensor) -> Tensor:
        # RMSNorm(x) is the first half of LayerNorm(x, -x), whose mean is 0; PyTorch's CPU kernels know only
        # the latter.
        size = x.shape[-1]
        return (
            F.layer_norm(torch.cat([x, -x], -1), (2 * size,), eps=module.variance_epsilon)[..., :size]
            * module.weight
        )

    for index, layer in enumerate(llama.layers):
        x = x + _attend(layer.self_attn, norm(layer.input_layernorm, x), past, index)
        x = x + layer.mlp(norm(layer.post_attention_layernorm, x))
    return norm(llama.norm, x)
