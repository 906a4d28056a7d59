"""Backbone: a text LLM taken as it is, whose positions can also be frames of a conversation.

    x[t] = listen_proj(e[t]) + (E(user_text[t]) + user_mark) + latent_proj(z[t-1]) + E(own_text[t-1]) + since[n]

Until the next word, frames hold the newest one, and `since` tells for how many frames n it has been the newest: most
frames bring no word, and a frame without one would have to look for its place in the sentence before it could go on.
A stream without sound adds nothing, and a position that holds text alone goes through the LLM's own
weights and nothing else: at warm start its logits are the text LLM's.

Memory of a conversation: the prompt's keys and values for good, and a ring of the newest `window` positions.
The prompt stays at a bounded distance from the newest frame, as in StreamingLLM (arXiv 2309.17453): once the
ring is full, its keys are turned along by as many positions as have been forgotten.

B batch, T positions, D width, V vocabulary, H key-value heads, S layers, P prompt positions.
"""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from .configuration_michiai import MichiAIConfig
from .decode_michiai import decode, empty_memory, layers_first, look_back
from .listen_michiai import embed_tokens
from .streaming_michiai import StreamState, name_modules, rotary_angles, rotate

SINCE = 32  # frames for which the age of a word is told exactly
CHUNK = 128  # positions that are computed at a time: more only take more memory


class _Memory:
    """What the LLM's attention layers see as their cache: a view of one StreamState."""

    is_compileable = False

    def __init__(self, past: Tensor) -> None:
        self.past = past  # [B, S, 2, H, K, head]
        self.new: list[Tensor] = []

    def update(
        self, key: Tensor, value: Tensor, layer: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        self.new.append(torch.stack([key, value], dim=1))
        past_key, past_value = self.past[:, layer].to(key.dtype).unbind(1)
        return torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)

    def get_seq_length(self, layer: int = 0) -> int:
        return self.past.shape[4]


def newest_words(
    user_text: Tensor, own_text: Tensor, past: Tensor | None = None, frame: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The newest word of each frame, and for how many frames it has been that.

    Args:
        user_text, own_text: tokens [B, T], 0 where nothing is new; of two in one frame, one's own is the newest.
        past: [B, 2] the last frame's word and age; None or zeros: there is none.
        frame: bool [B, T], False where a position is no frame and takes no time.
    Returns:
        words [B, T], the user's negative, 0 before the first; frames since then [B, T].
    """
    B, T = own_text.shape
    if past is None:
        past = own_text.new_zeros(B, 2)
    spoken = torch.where(own_text > 0, own_text, -user_text)
    clock = torch.ones_like(own_text) if frame is None else frame.long()
    words = torch.cat([past[:, :1], spoken], 1)
    clock = torch.cat([-past[:, 1:], clock.cumsum(1)], 1)
    index = torch.arange(T + 1, device=words.device).expand(B, -1)
    newest = (index * (words != 0)).cummax(1).values[:, 1:]
    return words.gather(1, newest), clock[:, 1:] - clock.gather(1, newest)


def quiet_linear(inputs: int, outputs: int, level: float = 0.02) -> nn.Linear:
    """A projection without bias whose output has the deviation `level` on inputs of deviation 1."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=level / inputs**0.5)
    return linear


class Backbone(nn.Module):
    """The LLM and the four projections that let it hear and speak.

    Args:
        config: the whole MichiAIConfig.
    """

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        text = config.text_config
        self.language_model = AutoModelForCausalLM.from_config(text)
        # No biases, and a quiet start: a frame without sound is nothing at all, and at first sound drowns no
        # word.
        self.listen_proj = quiet_linear(config.listen_config.width, text.hidden_size)
        self.latent_proj = quiet_linear(config.latent_dim, text.hidden_size)
        self.user_mark = nn.Parameter(torch.zeros(text.hidden_size))  # tells the user's words from one's own
        self.since = nn.Parameter(torch.zeros(SINCE, text.hidden_size))  # of a word that has been the newest for so long
        self.nothing = nn.Linear(
            text.hidden_size, 1
        )  # scores "nothing new in this frame", for which an LLM has no token
        self.window = config.window
        self.head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.rope_base = text.rope_parameters["rope_theta"]
        # A single position takes the lean way of `decode`; False: transformers' forward, the reference.
        self.lean = (
            type(self.language_model).__name__ == "LlamaForCausalLM"
            and text.rope_parameters["rope_type"] == "default"
        )
        self.memory_dtype: torch.dtype | None = None  # of keys and values; None: that of the activations
        name_modules(self)

    @property
    def table(self) -> Tensor | nn.Module:
        """The LLM's embedding table E [V, D], or the module that holds it packed."""
        module = self.language_model.get_input_embeddings()
        return module.weight if isinstance(module, nn.Embedding) else module

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Plain text positions: [B, T] -> [B, T, D]."""
        return embed_tokens(self.table, tokens)

    def embed_latents(self, latents: Tensor) -> Tensor:
        """Positions of a voice prompt: [B, T, L] -> [B, T, D]."""
        return self.latent_proj(latents)

    def embed_frames(
        self,
        heard: Tensor,
        user_text: Tensor,
        latents: Tensor,
        own_text: Tensor,
        state: StreamState | None = None,
        frame: Tensor | None = None,
    ) -> Tensor:
        """Positions of a conversation.

        Args:
            heard: [B, T, D_listen], the listen head's embeddings e[t]; zeros where there is no sound.
            user_text: [B, T], tokens heard in the frame, 0 where nothing is new.
            latents: [B, T, L], own sound of the frame before, z[t-1]; zeros where there is none.
            own_text: [B, T], own token of the frame before, 0 where nothing was new.
            state: the conversation's memory, which keeps the newest word; None: these are its first frames.
            frame: bool [B, T], False where something else than a frame stands; None: all are frames.
        """
        past = None if state is None else state.get("backbone.newest")
        words, since = newest_words(user_text, own_text, past, frame)
        if state is not None:
            state["backbone.newest"] = torch.stack([words[:, -1], since[:, -1]], 1)
        held, both = (mask.unsqueeze(-1) for mask in (words != 0, (user_text > 0) & (own_text > 0)))
        word = self.embed_text(words.abs()) + (words < 0).unsqueeze(-1) * self.user_mark
        x = self.listen_proj(heard) + self.latent_proj(latents)
        x = x + both * (self.embed_text(user_text) + self.user_mark) + held * word
        return x + held * nn.functional.embedding(since.clamp(max=SINCE - 1), self.since)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """What the LLM would write next: [..., D] -> [..., V]."""
        return self.language_model.lm_head(hidden)

    def frame_logits(self, hidden: Tensor) -> Tensor:
        """What is said in a frame: [..., D] -> [..., V]; id 0 is "nothing new"."""
        return torch.cat([self.nothing(hidden), self.text_logits(hidden)[..., 1:]], dim=-1)

    def forward(self, x: Tensor, state: StreamState | None = None, prompt: bool = False) -> Tensor:
        """Positions `x` [B, T, D] -> hidden states [B, T, D].

        Args:
            state: None for a whole sequence from its start; else the conversation's memory, changed in place.
            prompt: remember these positions for good (they come before all others).
        """
        if state is None:
            return self.language_model.model(inputs_embeds=x, use_cache=False).last_hidden_state
        self.open(x, state)
        if x.shape[1] == 1 and self.lean and not prompt:
            return self._one(x, state)
        return torch.cat([self._chunk(piece, state, prompt) for piece in x.split(CHUNK, dim=1)], dim=1)

    def open(self, x: Tensor, state: StreamState) -> None:
        """The memory of a new conversation: no slots for a prompt, and a ring that also holds the newest
        position.
        """
        if "backbone.memory" in state:
            return
        B, text = x.shape[0], self.language_model.config
        shape = (B, text.num_hidden_layers, 2, text.num_key_value_heads, self.window + 1, self.head_size)
        state["backbone.memory"] = empty_memory(x.to(self.memory_dtype or x.dtype), shape)
        state["backbone.count"] = torch.zeros(
            B, dtype=torch.long, device=x.device
        )  # positions so far, the prompt's too
        state["backbone.prompt_length"] = torch.zeros(B, dtype=torch.long, device=x.device)
        state["backbone.ring_position"] = torch.zeros(B, self.window + 1, dtype=torch.long, device=x.device)

    def _one(self, x: Tensor, state: StreamState) -> Tensor:
        """One position [B, 1, D] by `decode`."""
        memory = state["backbone.memory"] = layers_first(
            state["backbone.memory"]
        )  # joined rows may lie otherwise
        count = state["backbone.count"]
        past = look_back(
            memory, state["backbone.prompt_length"], state["backbone.ring_position"], count, self.rope_base
        )
        state["backbone.count"] = count + 1
        return decode(self.language_model.model, x[:, 0], past)[:, None]

    def _chunk(self, x: Tensor, state: StreamState, prompt: bool) -> Tensor:
        """Positions [B, T, D] by transformers' forward."""
        B, T, _ = x.shape
        count = state["backbone.count"]
        positions = count[:, None] + torch.arange(T, device=x.device)
        past, ring_position = self._past(state, count)
        n_prompt = past.shape[4] - ring_position.shape[1]
        prompted = torch.arange(n_prompt, device=x.device) < state["backbone.prompt_length"][:, None]
        keys = torch.cat([ring_position, positions], dim=1)[:, None, :]
        age = positions[:, :, None] - keys
        recent = (keys >= 0) & (age >= 0) & (age <= (int(count.max()) + T if prompt else self.window))
        mask = torch.cat([prompted[:, None].expand(B, T, n_prompt), recent], dim=2)[:, None]
        memory = _Memory(past)
        hidden = self.language_model.model(
            inputs_embeds=x,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=memory,
            use_cache=True,
        ).last_hidden_state
        self._remember(torch.stack(memory.new, dim=1), positions, state, prompt)
        state["backbone.count"] = count + T
        return hidden

    def _past(self, state: StreamState, count: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, 2, H, P + N, head], and the positions [B, N] of the ring's (-1: empty); N
        may be 0.
        """
        memory, ring_position = state["backbone.memory"], state["backbone.ring_position"]
        n_prompt = memory.shape[4] - ring_position.shape[1]
        if not bool(ring_position.any()):
            return memory[:, :, :, :, :n_prompt], ring_position[:, :0]
        forgotten = (count - state["backbone.prompt_length"] - self.window).clamp(
            min=0
        )  # [B] positions that left the ring
        if n_prompt and bool(forgotten.any()):
            cos, sin = rotary_angles(forgotten, self.head_size, self.rope_base)
            key = memory[:, :, 0, :, :n_prompt].float()
            memory = memory.clone()
            memory[:, :, 0, :, :n_prompt] = rotate(key, cos[:, None, None, None], sin[:, None, None, None])
        return memory, ring_position - 1

    def _remember(self, new: Tensor, positions: Tensor, state: StreamState, prompt: bool) -> None:
        """Keep `new` [B, S, 2, H, T, head] as prompt or in the ring; ring positions are stored + 1, so that
        0 is empty.
        """
        rows, ring_position = (
            torch.arange(len(new), device=new.device)[:, None],
            state["backbone.ring_position"],
        )
        n_ring, length = ring_position.shape[1], state["backbone.prompt_length"]
        if prompt:
            slots = length[:, None] + torch.arange(new.shape[4], device=new.device)
            state["backbone.memory"] = self._room(state["backbone.memory"], n_ring, int(slots.max()) + 1)
            state["backbone.prompt_length"] = length + new.shape[4]
        else:
            new, positions = new[:, :, :, :, -n_ring:], positions[:, -n_ring:]
            slots = (positions - length[:, None]) % n_ring
            ring_position[rows, slots] = positions + 1
            slots = slots + (state["backbone.memory"].shape[4] - n_ring)
        memory = state["backbone.memory"]
        memory[rows, :, :, :, slots] = new.permute(0, 4, 1, 2, 3, 5).to(memory.dtype)

    @staticmethod
    def _room(memory: Tensor, n_ring: int, wanted: int) -> Tensor:
        """`memory` [B, S, 2, H, P + N, head] with P of at least `wanted`, in whole chunks: so that few
        shapes occur.
        """
        n_prompt = memory.shape[4] - n_ring
        more = -(-wanted // CHUNK) * CHUNK - n_prompt
        if more <= 0:
            return memory
        room = empty_memory(memory, (*memory.shape[:4], more, memory.shape[5]))
        return layers_first(
            torch.cat([memory[:, :, :, :, :n_prompt], room, memory[:, :, :, :, n_prompt:]], dim=4)
        )
