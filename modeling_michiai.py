"""MichiAI hears and speaks at once, one frame (80 ms) at a time.

    user audio -> listen -> embedding, text, turn gate -\\
                                  own text, own sound ---+-> backbone -> own text
                                          ^                     |
                                          +------- latent <- speak -> vocoder -> own audio
    reference audio -> codec -> voice prompt

B batch, T frames, N samples, D backbone width, L latent width, V vocabulary.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from string import punctuation
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel

from .backbone_michiai import Backbone, each_way, repeated
from .codec_michiai import AudioEncoder
from .configuration_michiai import SOUNDS, MichiAIConfig
from .conversation_michiai import ConversationMixin
from .lanes_michiai import EMPTY, ENTERING, SOUND, TEXT, kind_of, newest_text, next_text, speaks, text_lane, words_due
from .listen_michiai import ListenHead, expect, expected_gain, foresee, foreseen_gain, greedy_text, remember_newest
from .optimize_michiai import arrange_convolutions, begin_anew, prepare, use_int8
from .processing_michiai import MichiAIProcessor
from .speak_michiai import SpeakHead
from .streaming_michiai import StreamState, name_modules
from .vocoder_michiai import Vocoder

DEFAULT_VOICE_FRAMES = 40


@dataclass
class StepOutput:
    """What one frame brought, for every row of the batch."""

    audio: Tensor  # [B, samples per frame]
    own_text: Tensor  # [B] token, 0 where nothing is new
    user_text: Tensor  # [B] token, 0 where nothing is new
    turn_probability: Tensor  # [B] that the user has finished
    text_logits: Tensor  # [B, V] log probabilities of own_text
    latent: Tensor  # [B, L]


def _where(due: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` [B, ...] in rows that are due, else `old`."""
    return new if due is None or new is old else torch.where(due.view(-1, *[1] * (new.ndim - 1)), new, old)


def directly(stage: Callable, state: StreamState, *arguments: Any) -> tuple[Tensor, ...]:
    """Run a stage of a frame as it stands."""
    return stage(state, *arguments)


class MichiAIModel(ConversationMixin, PreTrainedModel, GenerationMixin):
    """Full-duplex speech language model.

    Args:
        config: a MichiAIConfig.
    """

    config_class = MichiAIConfig
    base_model_prefix = ""
    main_input_name = "audio"
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ["mel", "vocoder.head"]  # those that are `Exact`
    _tied_weights_keys = {
        "backbone.language_model.lm_head.weight": "backbone.language_model.model.embed_tokens.weight"
    }

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__(config)
        self.codec = AudioEncoder(config)
        self.listen = ListenHead(config, config.text_config.hidden_size)
        self.backbone = Backbone(config)
        self.speak_head = SpeakHead(config)
        self.vocoder = Vocoder(config)
        self.register_buffer("default_voice", torch.zeros(DEFAULT_VOICE_FRAMES, config.latent_dim))
        self._tokenizer: Any = None
        self._tokenizer_from: Any = None  # the folder or repository, and how to get there
        self.runner: Any = None  # runs `frame` in another way, as `optimize` sets it up
        name_modules(self)
        if config.optimized is not None:
            use_int8(self)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As of every transformers model, but a checkpoint that does not fit is refused: no part is ever
        left random.
        """
        name = str(args[0] if args else kwargs["pretrained_model_name_or_path"])
        model, info = super().from_pretrained(
            *args, output_loading_info=True, **{**kwargs, "ignore_mismatched_sizes": True}
        )
        wrong = {what: sorted(map(str, keys))[:4] for what, keys in info.items() if keys}
        if wrong:
            raise ValueError(
                f"the checkpoint {args[0] if args else ''} does not fit its config.json: {wrong}; "
                "expected every tensor of "
                "the model and no other: are weights and config of the same version?"
            )
        if model.config.optimized is not None:
            if model.dtype != torch.float32:
                raise ValueError(f"dtype is {model.dtype}, but this checkpoint is optimised for {model.config.optimized!r}, whose kernels "
                                 "take float32 beside int8; expected no dtype: leave it out")
            prepare(model)
        else:
            arrange_convolutions(model)
        how = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
        model._tokenizer_from = (os.path.abspath(name) if os.path.isdir(name) else name), how
        return (model, info) if output_loading_info else model

    def _apply(self, fn: Callable, recurse: bool = True) -> "MichiAIModel":
        """As of every module, but an optimised model keeps its types and its device: that is what its kernels and records are for."""
        optimised = self.runner is not None
        if optimised:
            like = self.default_voice.new_empty(0)
            made = fn(like)
            if (made.dtype, made.device) != (like.dtype, like.device):
                raise ValueError(
                    f"the model is optimised for {like.dtype} on {like.device} and was asked to become {made.dtype} on {made.device}; "
                    "expected that before `optimize`: load it anew"
                )
        super()._apply(fn, recurse)
        if optimised:
            begin_anew(self)
        return self

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As of every transformers model, and beside it the processor with its tokenizer, where it has one: without that it does not
        converse.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        tokenizer = None
        if self._tokenizer or self._tokenizer_from:
            with suppress(OSError, ValueError):  # it cannot be found
                tokenizer = self.tokenizer
        if tokenizer is not None:
            MichiAIProcessor.register_for_auto_class()
            made = MichiAIProcessor(tokenizer, self.config.sampling_rate, self.config.spoken_text)
            made.save_pretrained(save_directory)

    @property
    def dtype(self) -> torch.dtype:
        """Of latents, noise and hidden states; parts of an optimised model compute in others."""
        return self.backbone.since.dtype

    # ---------------------------------------------------------------- one frame, and the prompt before it

    def forward(
        self, heard: Tensor, user_text: Tensor, latents: Tensor, own_text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced frames from an empty past, as in training.

        Args: as of `Backbone.embed_frames`.
        Returns:
            log probabilities of own text [B, T, V] and hidden states [B, T, D], the speak head's condition.
        """
        lane = text_lane(user_text, own_text, self.config.special_tokens)
        frames = self.backbone.embed_frames(heard, user_text, latents, own_text)
        x = torch.cat([self.backbone.embed_text(lane), frames[:, :, None]], 2).flatten(1, 2)
        kind = torch.cat([kind_of(lane), torch.full_like(lane[:, :, :1], SOUND)], 2).flatten(1, 2)
        hidden = self.backbone(x, kind)
        text = newest_text(hidden, kind)[:, 2::3]
        return self.backbone.frame_logits(hidden[:, 2::3], text), hidden[:, 2::3]

    @torch.inference_mode()
    def prompt(self, state: StreamState, tokens: Tensor, voice: Tensor, guidance: float = 0.0) -> None:
        """Put text [B, T] and then a voice's latents [B, T', L] before all frames of `state`.

        Args:
            guidance: w of classifier-free guidance (Ho & Salimans, arXiv 2207.12598): the backbone goes through the conversation twice,
                with the voice and with zeros in its place, and a latent is z + w (z - z without the voice). 0: once.
        """
        voices = [voice]
        if guidance:
            state["speak.guidance"] = voice.new_full((len(voice), 1, 1), guidance)
            voices.append(torch.zeros_like(voice))
        voice = torch.stack(voices, 1).flatten(0, 1)
        tokens = tokens.repeat_interleave(len(voices), 0)
        x = [self.backbone.embed_text(tokens), self.backbone.embed_latents(voice)]
        kind = [torch.full(x[0].shape[:2], TEXT, device=voice.device), torch.full(x[1].shape[:2], SOUND, device=voice.device)]
        x, kind = torch.cat(x, dim=1), torch.cat(kind, dim=1)
        if x.shape[1]:
            with each_way(state, len(voices)) as (rows, _):
                self.backbone(x, kind, rows, prompt=True)

    @torch.inference_mode()
    def inject(self, state: StreamState, tokens: Tensor) -> None:
        """Put text [B, T] between two frames."""
        x = self.backbone.embed_text(tokens)
        with each_way(state) as (rows, n):
            self.backbone(repeated(x, n), state=rows)

    @torch.inference_mode()
    def expect(self, state: StreamState, text: str) -> None:
        """From now on the words of `text` are likelier to be heard (see `listen_michiai.expect`)."""
        words = [word.strip(punctuation) for word in text.split()]
        pieces = [self.tokenizer(" " + word, add_special_tokens=False)["input_ids"] for word in words if word]
        expect(state, pieces, state["backbone.counts"])

    @torch.inference_mode()
    def step(
        self,
        audio: Tensor,
        state: StreamState,
        noise: Tensor,
        *,
        flow_steps: int = 1,
        allowed: Tensor | None = None,
        choose: Any = None,
        due: Tensor | None = None,
    ) -> StepOutput:
        """One frame for every row.

        Args:
            audio: [B, samples per frame] of the user.
            state: memory of these conversations, changed in place.
            noise: [B, L] that the flow starts from.
            flow_steps: evaluations of the velocity network.
            allowed: [B, V] bool, tokens that may be said now; None: all.
            choose: function from logits [B, V] to tokens [B]; None: the most likely.
            due: bool [B], rows that have a frame now; the others stay as they were, and their output means nothing. None: all.
        """
        words = words_due(state, self.config.special_tokens, due)
        out = (self.runner or self.frame)(audio, state, noise, flow_steps, words, due)
        if allowed is not None:
            out.text_logits = out.text_logits.masked_fill(~allowed, float("-inf"))
        if allowed is not None or choose is not None:
            out.own_text = out.text_logits.argmax(-1) if choose is None else choose(out.text_logits)
            state["own_text"] = _where(due, out.own_text[:, None], state["own_text"])
        return out

    @torch.inference_mode()
    def ready(self, state: StreamState, flow_steps: int = 1) -> None:
        """Prepare for the frames of `state`, whose prompt is set: an optimised model records one per
        shape.
        """
        if self.runner is not None:
            like, batch = self.default_voice, len(state["backbone.counts"]) if state else 1
            audio = torch.zeros(batch, self.config.frame_size, device=like.device)
            self.runner.ready(audio, state, like.new_zeros(batch, self.config.latent_dim), flow_steps)

    def frame(
        self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, words: int = ENTERING, due: Tensor | None = None,
        run: Callable = directly,
    ) -> StepOutput:
        """The arithmetic of `step`, with the most likely own text: on a GPU nothing in it waits for the
        device.

        Args:
            words: how many words may enter the text lane; fewer than ENTERING, where no more are due, save the empty positions.
            due: as of `step`.
            run: how each of its three stages is run: (stage, state, *arguments, tensors first) -> tensors.
        """
        for name in ("own_text", "user_text"):
            state.begin(name, lambda: torch.zeros(len(audio), 1, dtype=torch.long, device=audio.device))
        state.begin("latent", lambda: torch.zeros_like(noise)[:, None])
        kept = StreamState() if due is None else self._kept(state)
        embeds, user_text, turn = run(self.hear, state, audio)
        hidden, logits = run(self.think, state, embeds, user_text, due, words)
        sound, latent = run(self.utter, state, hidden, noise, flow_steps)
        own_text = logits.argmax(-1)
        state["own_text"], state["user_text"], state["latent"] = own_text[:, None], user_text, latent
        if due is not None:
            self._keep(state, kept, due)
        return StepOutput(sound, own_text, user_text[:, -1], turn, logits, latent[:, 0])

    def _kept(self, state: StreamState) -> StreamState:
        """Memories as they are before a frame, which writes none of these in place."""
        written = f"{self.vocoder.path}.memory"
        return StreamState({path: memory.clone() if path == written else memory for path, memory in state.items()})

    def _keep(self, state: StreamState, kept: StreamState, due: Tensor) -> None:
        """Give rows that are not due back what they had before a frame, nothing if that made it. Their keys and values need not be kept:
        the LLM wrote none of theirs, and the listen head wrote where it will write in their next frame.
        """
        left = {"backbone.prompt", "backbone.memory", "backbone.held", f"{self.listen.transformer.path}.memory"}
        for path in state.keys() - left:
            new = state[path]
            state[path] = _where(due, new, kept[path] if path in kept else torch.zeros_like(new))

    def hear(self, state: StreamState, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Audio of a frame -> embeddings [B, 1, D_listen], the user's token [B, 1], P(the user has finished) [B]."""
        heard = self.listen(audio, self.backbone.embed_text(state["user_text"]), state)
        V = self.config.text_config.vocab_size
        gain = expected_gain(state, V, audio) + foreseen_gain(state, V, audio)
        user_text = greedy_text(heard, self.backbone.table, gain)
        remember_newest(state, user_text[:, -1])
        return heard.embeds, user_text, heard.turn_logits[:, -1].float().sigmoid()

    def think(self, state: StreamState, embeds: Tensor, user_text: Tensor, due: Tensor | None, words: int) -> tuple[Tensor, Tensor]:
        """What was heard -> hidden states of the frame [B, 1, D], guided [2 B, 1, D], scores of own tokens [B, V]."""
        special, own_text = self.config.special_tokens, state["own_text"]
        x = self.backbone.embed_frames(embeds, user_text, state["latent"], own_text, state)
        kind = torch.full_like(user_text, SOUND)
        if words:
            new = next_text(own_text[:, 0], state["user_text"][:, 0], state, special)[:, :words]
            x, kind = torch.cat([self.backbone.embed_text(new).to(x.dtype), x], 1), torch.cat([kind_of(new), kind], 1)
        if due is not None:
            kind = torch.where(due[:, None], kind, EMPTY)
        with each_way(state) as (rows, n):
            hidden = self.backbone(repeated(x, n), repeated(kind, n), rows, words=words > 0)[:, -1:]
            logits = self.backbone.frame_logits(hidden[::n, 0], rows["backbone.text"][::n], rows["backbone.next"][::n])
        sure = (user_text[:, 0] == 0) & ~speaks(state, user_text[:, 0])
        foresee(state, logits, sure, unsaid=[token for name, token in special.items() if name not in SOUNDS])
        return hidden, logits

    def utter(self, state: StreamState, hidden: Tensor, noise: Tensor, flow_steps: int) -> tuple[Tensor, Tensor]:
        """Hidden states of the frame, as of `think` -> its samples [B, N], its latent [B, 1, L]."""
        latent = self.speak_head(hidden, repeated(noise[:, None], len(hidden) // len(noise)), flow_steps)
        if len(hidden) > len(noise):
            latent, without = latent[::2], latent[1::2]
            latent = latent + state["speak.guidance"] * (latent - without)
        return self.vocoder(latent, state), latent

    # ---------------------------------------------------------------- as transformers asks of any text model

    def get_input_embeddings(self) -> nn.Module:
        """The text LLM's table of words, which text and frames have in common."""
        return self.backbone.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The text LLM's head."""
        return self.backbone.language_model.get_output_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """Room for tokens that were added to the tokenizer: of the text LLM, whose table the listen head shares."""
        table = self.backbone.language_model.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.config.text_config.vocab_size = self.backbone.language_model.config.vocab_size
        return table

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep what their constructors drew; only the LLM's unsaved rotary table is made again after
        loading.
        """
        if "RotaryEmbedding" in type(module).__name__:
            super()._init_weights(module)
