"""A few positions of a Llama, lean: the same weights as transformers' modules, memory written in place.

transformers' own forward builds masks, caches and position tables for every call and sees the past as one
tensor that is put together anew; for a frame that costs more than its arithmetic. Here the past stays where
it is, and that the prompt moves along with the conversation (see `backbone_michiai.py`) is a turn of the
query instead of all keys.

B batch, T positions, S layers, H key-value heads, G query heads per key-value head, D width, P prompt slots, K slots.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels_michiai import MOST, Int8Layers
from .streaming_michiai import rotary_angles, rotate, through


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
    """What positions see of their past, and of each other; the same for all layers."""

    prompt: Tensor  # [B, S, 2, H, P, head], one of the two is written in place
    memory: Tensor  # [B, S, 2, H, K - P, head]
    write_prompt: bool  # which
    rows: Tensor  # [B, 1] 0 .. B - 1
    slot: Tensor  # [B, T] where the positions are written
    seen: Tensor  # bool [B, T, K]
    cos: Tensor  # [B, T, 2, 1, head] of the positions as the prompt sees them, and as all others do
    sin: Tensor  # the same, as `rotate` takes it

    @classmethod
    def of(
        cls, prompt: Tensor, memory: Tensor, write_prompt: bool, slot: Tensor, seen: Tensor, near: Tensor, position: Tensor, base: float
    ) -> "Past":
        """Slots [B, T], what is seen [B, T, K], positions [B, T] that count towards the prompt's and the others'."""
        rows = torch.arange(len(slot), device=slot.device)[:, None]
        cos, sin = rotary_angles(torch.stack([near, position], 2), memory.shape[5], base)
        return cls(prompt, memory, write_prompt, rows, slot, seen, cos[:, :, :, None], sin[:, :, :, None])

    def sight(self, attention: nn.Module) -> tuple[Tensor, Tensor]:
        """What is added to a layer's scores [B, 1, T G, K], and to the weight of the prompt beside the memory [B, 1, T G]: minus
        infinity where nothing is seen of it, plus infinity where nothing else is.
        """
        mask = torch.zeros_like(self.seen, dtype=torch.float32).masked_fill(~self.seen, float("-inf"))
        mask = mask[:, None, :, None].expand(-1, -1, -1, attention.num_key_value_groups, -1).flatten(2, 3)
        far, near = mask.split([self.prompt.shape[4], self.memory.shape[4]], -1)
        return mask, _all_unseen(far) - _all_unseen(near)

    def turns(self, attention: nn.Module) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, 2, heads, head] of a layer's queries, which they scale too, its keys, and its values, not turned."""
        H = self.memory.shape[3]
        query, still = H * attention.num_key_value_groups, torch.ones_like(self.cos).expand(-1, -1, -1, H, -1)
        cos, sin = (torch.cat([part.expand(-1, -1, -1, query, -1) * attention.scaling, part.expand(-1, -1, -1, H, -1)], 3)
                    for part in (self.cos, self.sin))
        return torch.cat([cos, still], 3), torch.cat([sin, torch.zeros_like(still)], 3)


def _project(attention: nn.Module, x: Tensor) -> Tensor:
    """Queries, keys and values side by side: [B, T, D] -> [B, T, heads * head]."""
    if hasattr(attention, "qkv_proj"):  # joined (`optimize_michiai.py`)
        return attention.qkv_proj(x)
    return torch.cat([attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)], -1)


def _all_unseen(mask: Tensor) -> Tensor:
    """Minus infinity where a row [..., K] of a mask is that everywhere, else 0: [...]."""
    seen = (mask == 0).any(-1)
    return torch.zeros_like(seen, dtype=mask.dtype).masked_fill(~seen, float("-inf"))


def by_parts(query: Tensor, prompt: Tensor, memory: Tensor, mask: Tensor, lean: Tensor) -> Tensor:
    """Attention over two memories by the CPU's kernel, once for each, their sums put together by their weights, as FlashDecoding
    does: nothing of the scores' size is written or laid out anew.

    Args:
        query: [2, B, H, M, head], for the prompt and for the memory.
        prompt, memory: [B, 2 (key, value), H, slots, head].
        mask, lean: as of `Past.sight`.
    Returns:
        [B, H, M, head].
    """
    mask = mask.to(torch.promote_types(mask.dtype, query.dtype))  # the kernel takes float64's for what it is not
    far, near = mask.split([prompt.shape[3], memory.shape[3]], -1)
    look = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # the public function keeps the weights to itself
    y, weight = look(query[1], *memory.unbind(1), attn_mask=near, scale=1.0)
    if prompt.shape[3] == 0:
        return y
    y_far, weight_far = look(query[0], *prompt.unbind(1), attn_mask=far, scale=1.0)
    share = torch.sigmoid(weight_far - weight + lean)[..., None]
    return torch.lerp(y.to(share.dtype), y_far.to(share.dtype), share)


def at_once(query: Tensor, prompt: Tensor, memory: Tensor, mask: Tensor, lean: Tensor) -> Tensor:
    """The same by one softmax over the scores of both: fewest kernels on a GPU, where launching them is what costs."""
    (far_keys, far_values), (keys, values) = (part.movedim(1, 0).flatten(1, 2) for part in (prompt, memory))  # [B H, slots, head]
    query_far, query_near = query.flatten(1, 2)
    scores = torch.cat([torch.bmm(query_far, far_keys.transpose(1, 2)), torch.bmm(query_near, keys.transpose(1, 2))], -1)
    scores = scores.view(*query.shape[1:4], -1) + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(memory.dtype).flatten(0, 1)
    weights_far, weights_near = weights.split([far_keys.shape[1], keys.shape[1]], -1)
    return (torch.bmm(weights_far, far_values) + torch.bmm(weights_near, values)).view_as(query[0])


def _attend(attention: nn.Module, x: Tensor, shared: list[Tensor], own: list[Tensor], write_prompt: bool) -> Tensor:
    """LlamaAttention: `x` [B, T, D] -> [B, T, D]; arguments as `decode` makes them of a Past."""
    (rows, slot, mask, lean, cos, sin), (prompt, memory) = shared, own
    B, T, _ = x.shape
    H, size = memory.shape[2], memory.shape[4]
    both = rotate(_project(attention, x).view(B, T, 1, -1, size), cos, sin).to(memory.dtype)  # [B, T, 2, heads, head]
    written = prompt if write_prompt else memory
    written[rows, :, :, slot] = both[:, :, 1, -2 * H :].unflatten(2, (2, H))
    query = both[:, :, :, : -2 * H].reshape(B, T, 2, H, -1, size).permute(2, 0, 3, 1, 4, 5).reshape(2, B, H, -1, size)
    y = (by_parts if x.device.type == "cpu" else at_once)(query, prompt, memory, mask, lean)
    y = y.view(B, H, T, -1, size)
    return attention.o_proj(y.transpose(1, 2).reshape(B, T, -1).to(x.dtype))


def _norm(module: nn.Module, x: Tensor) -> Tensor:
    """LlamaRMSNorm as the first half of LayerNorm(x, -x), whose mean is 0: PyTorch's CPU kernels know only the latter."""
    size = x.shape[-1]
    both = F.layer_norm(torch.cat([x, -x], -1), (2 * size,), eps=module.variance_epsilon)
    return both[..., :size] * module.weight


def _follow(layer: nn.Module, x: Tensor, shared: list[Tensor], own: list[Tensor], write_prompt: bool) -> Tensor:
    """LlamaDecoderLayer."""
    x = x + _attend(layer.self_attn, _norm(layer.input_layernorm, x), shared, own, write_prompt)
    return x + layer.mlp(_norm(layer.post_attention_layernorm, x))


def decode(llama: nn.Module, x: Tensor, past: Past, kernel: Int8Layers | None = None) -> Tensor:
    """LlamaModel of a few positions: `x` [B, T, D] -> hidden states [B, T, D]; keys and values are written to memory.

    Args:
        kernel: its layers in one call; None: layer by layer.
    """
    if kernel is not None and x.shape[1] <= MOST:
        cos, sin = past.cos[:, :, :, 0], past.sin[:, :, :, 0]
        return kernel(x, past.slot, past.seen, cos, sin, past.prompt, past.memory, past.write_prompt)
    step = partial(_follow, write_prompt=past.write_prompt)
    attention = llama.layers[0].self_attn
    shared = [past.rows, past.slot, *past.sight(attention), *past.turns(attention)]
    return _norm(llama.norm, through.get()(step, llama.layers, x, shared, [past.prompt, past.memory]))
