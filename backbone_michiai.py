"""Backbone: a text LLM taken as it is, through which a conversation goes in two lanes.

The text lane holds what a text LLM would read: the prompt, the user's words and one's own, each as it becomes known, at
one position each. Text sees text alone, so its hidden states, and what they say comes next, are the text LLM's, whatever
is heard meanwhile. The sound lane holds the voice prompt and then, every 80 ms, a frame

    x[t] = listen_proj(e[t]) + latent_proj(z[t-1]) + E(newest word) + since[n]

which sees the text, the voice and the frames before it. The text lane knows what to say; a frame knows when, and how it
sounds. With h[t] of the frame and w of the newest text (c: something new is said, of the kind word, <turn> or <done>),

    p(token | t) = p(word | h[t], w) p(token | w) + p(c = token | h[t], w).

A frame stands at the position of the newest text and holds its newest word; `since` tells for how many frames n it has
been that. A stream without sound adds nothing.

Memory of a conversation: the prompt's keys and values for good, the newest `text_window` words and `window` frames.
The prompt stays at a bounded distance from the newest text, as in StreamingLLM (arXiv 2309.17453): once words are
forgotten, queries see its keys as many positions nearer.

B batch, T positions, D width, V vocabulary, H key-value heads, S layers, P prompt slots, K slots in all.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from .configuration_michiai import MichiAIConfig
from .decode_michiai import Past, decode, empty_memory, layers_first
from .kernels_michiai import Int8Layers
from .lanes_michiai import EMPTY, TEXT, lanes, newest_text, newest_words
from .listen_michiai import embed_tokens
from .streaming_michiai import StreamState, name_modules

WORD, TURN, DONE = 1, 2, 3  # kinds of news in a frame; 0: nothing new
SINCE = 32  # frames for which the age of a word is told exactly
CHUNK = 128  # positions that are computed at a time: more only take more memory


MEMORIES = tuple(f"backbone.{name}" for name in ("prompt", "memory", "held", "counts", "text", "next"))


@contextmanager
def each_way(state: StreamState, n_ways: int | None = None) -> Iterator[tuple[StreamState, int]]:
    """Memories for conversations that the backbone goes through in `n_ways`: those of B conversations, [B, n_ways, ...] in `state`, as
    [B n_ways, ...]. None: as `state` is.
    """
    if n_ways is None:
        n_ways = 1 if "backbone.counts" not in state or state["backbone.counts"].ndim == 2 else state["backbone.counts"].shape[1]
    if n_ways == 1:
        yield state, 1
        return
    rows = StreamState({path: state[path].flatten(0, 1) for path in MEMORIES if path in state})
    yield rows, n_ways
    state.update({path: memory.unflatten(0, (-1, n_ways)) for path, memory in rows.items()})


def repeated(x: Tensor, n_ways: int) -> Tensor:
    """Each row of the batch `n_ways` times, for rows as of `each_way`: [B, ...] -> [B n_ways, ...]."""
    return x if n_ways == 1 else x.repeat_interleave(n_ways, 0)


def quiet_linear(inputs: int, outputs: int, level: float = 0.02) -> nn.Linear:
    """A projection without bias whose output has the deviation `level` on inputs of deviation 1."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=level / inputs**0.5)
    return linear


class Backbone(nn.Module):
    """The LLM, the projections that let it hear and speak, and the gate that says when.

    Args:
        config: the whole MichiAIConfig; its LLM must be a Llama.
    """

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        text = config.text_config
        if text.model_type != "llama" or text.rope_parameters["rope_type"] != "default":
            raise ValueError(
                f"the text LLM is a {text.model_type!r} with {text.rope_parameters['rope_type']!r} rotary positions; "
                "expected a 'llama' with 'default' ones"
            )
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.language_model.model.loss_type = self.language_model.loss_type  # without, transformers warns in every trace
        # No biases, and a quiet start: a stream without sound is nothing at all, and at first sound drowns no word.
        self.listen_proj = quiet_linear(config.listen_config.width, text.hidden_size)
        self.latent_proj = quiet_linear(config.latent_dim, text.hidden_size)
        self.user_mark = nn.Parameter(torch.zeros(text.hidden_size))  # tells the user's words from one's own
        self.since = nn.Parameter(torch.zeros(SINCE, text.hidden_size))  # of a word that has been the newest for so long
        self.gate = nn.Linear(2 * text.hidden_size, 4)  # nothing new, a word, <turn>, <done>
        self.special = config.special_tokens
        self.window, self.text_window = config.window, config.text_window
        self.head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        self.rope_base = text.rope_parameters["rope_theta"]
        self.memory_dtype: torch.dtype | None = None  # of keys and values; None: that of the activations
        self.kernel: Int8Layers | None = None  # as of `decode`
        name_modules(self)

    @property
    def table(self) -> Tensor | nn.Module:
        """The LLM's embedding table E [V, D], or the module that holds it packed."""
        module = self.language_model.get_input_embeddings()
        return module.weight if isinstance(module, nn.Embedding) else module

    # ---------------------------------------------------------------- what goes in

    def embed_text(self, tokens: Tensor) -> Tensor:
        """Text positions: [B, T] -> [B, T, D]; a negative token is the user's, while one speaks oneself."""
        return embed_tokens(self.table, tokens.abs()) + (tokens < 0).unsqueeze(-1) * self.user_mark

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
        """Frames of a conversation.

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
        word = self.embed_text(words) + F.embedding(since.clamp(max=SINCE - 1), self.since)
        return self.listen_proj(heard) + self.latent_proj(latents) + (words != 0).unsqueeze(-1) * word

    # ---------------------------------------------------------------- what comes out

    def text_logits(self, hidden: Tensor) -> Tensor:
        """What the LLM would write next: [..., D] -> [..., V]."""
        return self.language_model.lm_head(hidden)

    def gate_logits(self, hidden: Tensor, text: Tensor) -> Tensor:
        """Nothing new, a word, <turn> or <done>: hidden states of frames and of their newest text [..., D] -> [..., 4]."""
        return self.gate(torch.cat([hidden, text.to(hidden.dtype)], -1)).float()

    def frame_logits(self, hidden: Tensor, text: Tensor, following: Tensor | None = None) -> Tensor:
        """What is said in a frame: log probabilities [..., V]; id 0 is "nothing new".

        Args:
            hidden, text: as of `gate_logits`.
            following: `text_logits` of that text [..., V], if they are known.
        """
        gate = self.gate_logits(hidden, text).log_softmax(-1)
        following = self.text_logits(text.to(hidden.dtype)) if following is None else following
        words = following[..., 1:].float().log_softmax(-1)
        logits = torch.cat([gate[..., :1], gate[..., WORD : WORD + 1] + words], dim=-1)
        for kind, name in ((TURN, "<turn>"), (DONE, "<done>")):
            token = self.special[name]
            logits[..., token] = torch.logaddexp(logits[..., token], gate[..., kind])
        return logits

    def forward(
        self, x: Tensor, kind: Tensor | None = None, state: StreamState | None = None, prompt: bool = False, words: bool = True
    ) -> Tensor:
        """Positions `x` [B, T, D] -> hidden states [B, T, D].

        Args:
            kind: EMPTY, TEXT, SOUND or ASIDE of each position [B, T]; None: all are text.
            state: None for a whole sequence from its start; else the conversation's memory, changed in place.
            prompt: remember these positions for good (they come before all others).
            words: False where none of them is text: then what the LLM would write next is as before, and is not asked for.
        """
        if kind is None and state is None:
            return self.language_model.model(inputs_embeds=x, use_cache=False).last_hidden_state
        if kind is None:
            kind = torch.full(x.shape[:2], TEXT, device=x.device)
        if state is None:
            return self._offline(x, kind)
        self.open(x, state)
        pieces = zip(x.split(CHUNK, 1), kind.split(CHUNK, 1), strict=True)
        hidden = torch.cat([self._stream(piece, kinds, state, prompt) for piece, kinds in pieces], dim=1)
        if words:
            state["backbone.next"] = self.text_logits(state["backbone.text"])
        return hidden

    def _offline(self, x: Tensor, kind: Tensor) -> Tensor:
        """A whole sequence by transformers' forward, without an end of memory."""
        text, sound = lanes(kind)
        seen = (text[:, None] | (sound[:, None] & sound[..., None])).tril()
        seen = (seen | torch.eye(x.shape[1], dtype=torch.bool, device=x.device))[:, None]
        if self.language_model.config._attn_implementation == "eager":  # adds its mask
            seen = torch.zeros(seen.shape, device=x.device).masked_fill(~seen, float("-inf"))
        positions = (text.cumsum(1) - 1).clamp(min=0)
        return self.language_model.model(
            inputs_embeds=x, position_ids=positions, attention_mask=seen, use_cache=False
        ).last_hidden_state

    # ---------------------------------------------------------------- memory

    def open(self, like: Tensor, state: StreamState, prompt: int = 0) -> None:
        """The memory of a new conversation, of the batch, type and device of `like`, if there is none. Its slots: the prompt's, at least
        so many as `prompt`, words, frames, and one for what is empty.
        """
        if "backbone.memory" not in state:
            self._begin(like, state)
        self._room(state, prompt)

    def _begin(self, like: Tensor, state: StreamState) -> None:
        B, text = len(like), self.language_model.config
        slots, like_memory = self.text_window + self.window + 1, like.to(self.memory_dtype or like.dtype)
        for name, n in (("backbone.prompt", 0), ("backbone.memory", slots)):
            shape = (B, text.num_hidden_layers, 2, text.num_key_value_heads, n, self.head_size)
            state[name] = empty_memory(like_memory, shape)
        count = {"dtype": torch.long, "device": like.device}
        state["backbone.held"] = torch.zeros(B, slots, **count)  # which position, from 1; sound negative; 0: none
        state["backbone.counts"] = torch.zeros(B, 4, **count)  # text and sound in the prompt, words, frames
        state["backbone.text"] = like.new_zeros(B, text.hidden_size)  # hidden state of the newest text
        state["backbone.next"] = like.new_zeros(B, text.vocab_size)  # what the LLM would write after it

    def _stream(self, x: Tensor, kind: Tensor, state: StreamState, prompt: bool) -> Tensor:
        """Positions [B, T, D] that follow those of `state`."""
        past, counts = self._enter(kind, state, prompt)
        hidden = decode(self.language_model.model, x, past, self.kernel)
        state["backbone.counts"] = counts
        state["backbone.text"] = newest_text(hidden, kind, state["backbone.text"])[:, -1]
        return hidden

    def _enter(self, kind: Tensor, state: StreamState, prompt: bool) -> tuple[Past, Tensor]:
        """What positions `kind` [B, T] see of the past and of each other, their slots being taken; the counts after them."""
        text, sound = (lane.long() for lane in lanes(kind))
        counts = state["backbone.counts"]
        n_text, n_sound = text.cumsum(1), sound.cumsum(1)
        words = counts[:, 2:3] + (0 if prompt else n_text)
        if prompt:
            slot = counts[:, :2].sum(1, keepdim=True) + n_text + n_sound - 1
            self._room(state, int(slot.max()) + 1)
        held, n_prompt = state["backbone.held"], state["backbone.prompt"].shape[4]
        if not prompt:
            slot = torch.where(sound > 0, self.text_window + (counts[:, 3:] + n_sound - 1) % self.window, (words - 1) % self.text_window)
            slot = slot + n_prompt
        slot = torch.where(kind == EMPTY, held.shape[1] - 1, slot)
        place = slot if prompt else slot - n_prompt  # in its own memory
        number = counts.sum(1, keepdim=True) + n_text + n_sound
        held.scatter_(1, slot, number * (text - sound))
        seen = (held != 0)[:, None] & (held.abs()[:, None] <= number[..., None]) & ((held > 0)[:, None] | (sound > 0)[..., None])
        seen = seen | (torch.arange(held.shape[1], device=held.device) == slot[..., None])  # itself, if empty too
        position = (counts[:, :1] + counts[:, 2:3] + n_text - 1).clamp(min=0)
        forgotten = (words - self.text_window).clamp(min=0)
        for name in ("backbone.prompt", "backbone.memory"):
            state[name] = layers_first(state[name])  # joined rows may lie otherwise
        past = Past.of(
            state["backbone.prompt"], state["backbone.memory"], prompt, place, seen, position - forgotten, position, self.rope_base
        )
        more = torch.stack([n_text[:, -1], n_sound[:, -1]], 1)
        return past, counts + (F.pad(more, (0, 2)) if prompt else F.pad(more, (2, 0)))

    def _room(self, state: StreamState, wanted: int) -> None:
        """At least `wanted` slots for the prompt, in whole chunks: so that few shapes occur."""
        prompt, held = state["backbone.prompt"], state["backbone.held"]
        n_prompt = prompt.shape[4]
        more = -(-wanted // CHUNK) * CHUNK - n_prompt
        if more <= 0:
            return
        room = empty_memory(prompt, (*prompt.shape[:4], more, prompt.shape[5]))
        state["backbone.prompt"] = torch.cat([prompt, room], dim=4)
        state["backbone.held"] = torch.cat([held[:, :n_prompt], held.new_zeros(len(held), more), held[:, n_prompt:]], 1)
