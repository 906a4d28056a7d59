"""What people call on a model: conversations, speech from text, text from speech, voices.

Everything here goes through `MichiAIModel.prompt`, `inject`, `step` and `ready`, as anybody's own loop may.
"""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from .batch_michiai import Batch
from .listen_michiai import transcribe_frames
from .optimize_michiai import optimize
from .processing_michiai import Audio, load_audio, resample
from .reply_michiai import GenerationOptions, Reply, Transcript
from .session_michiai import DuplexSession
from .voice_michiai import Voice


class ConversationMixin:
    """Of a MichiAIModel; as transformers' GenerationMixin it has no weights and no memory of its own."""

    Voice = Voice  # the class, for whoever has the model alone: remote code is no package that one imports from

    @property
    def tokenizer(self) -> Any:
        """The text LLM's tokenizer, loaded from where the model came from; may be set."""
        if self._tokenizer is None:
            name, how = self._tokenizer_from or (self.config._name_or_path, {})
            self._tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True, **how)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def optimize(self, mode: str | None = None) -> Self:
        """This model in a faster form, for inference only: "cpu-int8", "cuda" or, without either, the one that belongs to where it lies
        (see `optimize_michiai.py`). Saved as usual.
        """
        return optimize(self, mode)

    def generate(self, *args: Any, **kwargs: Any) -> Tensor:
        """The text LLM's own `generate`, unchanged."""
        return self.backbone.language_model.generate(*args, **kwargs)

    def voice(self, reference: Audio) -> Voice:
        """A reusable Voice from 1 to 30 s of reference audio, a path or (array, rate), or from a file written by `Voice.save`."""
        return Voice.of(self, reference)

    def session(
        self,
        *,
        voice: Voice | Audio | None = None,
        instructions: str = "",
        context: str = "",
        options: GenerationOptions | dict | None = None,
        seed: int = 0,
    ) -> DuplexSession:
        """A conversation. It owns all memory; any number of them share the model."""
        return DuplexSession(
            self, voice=voice, instructions=instructions, context=context, options=options, seed=seed
        )

    def batch(self, limit: int) -> Batch:
        """Room for so many sessions that go through the model together (see `batch_michiai.py`)."""
        return Batch(self, limit)

    def converse(
        self,
        audio: Audio,
        *,
        voice: Voice | Audio | None = None,
        instructions: str = "",
        context: str = "",
        options: GenerationOptions | dict | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Reply:
        """Hold a conversation with a recording; goes on after its end until the answer is finished."""
        with self.session(
            voice=voice, instructions=instructions, context=context, options=options, seed=seed
        ) as s:
            return s.converse(audio, progress=progress)

    def transcribe(self, audio: Audio) -> Transcript:
        """What the listen head hears: text with word times."""
        samples, rate = load_audio(audio)
        samples = resample(samples, rate, self.config.sampling_rate)
        tail = (self.config.listen_config.delay + 2) * self.config.frame_size  # the last word becomes known after its end
        samples = F.pad(samples, (0, tail + (-len(samples) % self.config.frame_size)))
        tokens, _, _ = transcribe_frames(self.listen, self.backbone.table, samples[None].to(self.default_voice.device))
        words: list[tuple[str, float]] = []
        for index, token in enumerate(tokens[0].tolist()):
            if token == 0:
                continue
            piece = self.tokenizer.decode([token])
            end = max(0.0, (index - self.config.listen_config.delay + 1) / self.config.frame_rate)
            if words and not piece.startswith((" ", "<")):
                words[-1] = (words[-1][0] + piece, words[-1][1])
            else:
                words.append((piece.strip(), end))
        return Transcript(" ".join(word for word, _ in words), words)

    def speak(
        self,
        text: str,
        *,
        voice: Voice | Audio | None = None,
        options: GenerationOptions | dict | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Text -> waveform [N], float32 at `config.sampling_rate`."""
        return torch.cat(list(self.speak_stream(text, voice=voice, options=options, seed=seed)))

    def speak_stream(
        self,
        text: str,
        *,
        voice: Voice | Audio | None = None,
        options: GenerationOptions | dict | None = None,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """The frames of `speak` as they come."""
        with self.session(voice=voice, options=options, seed=seed) as session:
            yield from session.read(text)

    def warm_up(self) -> None:
        """Hold a short conversation after prompts of all lengths, guided and not: the first frames of each in a process are slow."""
        for guidance in {0.0, self.config.speak_config.guidance}:
            for length in range(1, self.config.max_prompt, 128):
                voice, options = Voice(torch.zeros(length, self.config.latent_dim)), GenerationOptions(voice_guidance=guidance)
                with self.session(voice=voice, options=options) as session:
                    session.push(torch.zeros(self.config.sampling_rate // 2))
