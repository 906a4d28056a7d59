"""One conversation: the frame clock, the prompt, and all memory between frames.

    session = model.session(context="the train to paris leaves at nine.")
    for frame in session.push(pcm, sampling_rate=48000): ...
"""

import math
import numbers
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .processing_michiai import StreamingResampler, check_rate, load_audio, resample, to_mono
from .reply_michiai import Frame, GenerationOptions, Reply
from .spoken_michiai import as_said, as_told, in_parts
from .streaming_michiai import StreamState
from .voice_michiai import Voice

ASK_TO_READ = "repeat after me"  # as users of the training dialogues do


class DuplexSession:
    """One full-duplex conversation with a model.

    Args:
        model: a MichiAIModel; sessions never write to it.
        voice: in which to speak, a Voice or whatever `model.voice` makes one of; None: the checkpoint's own.
        instructions, context: text that stands before the conversation.
        options: GenerationOptions, or some of them by name.
        seed: of all random draws.
    """

    def __init__(self, model: Any, *, voice: Any = None, instructions: str = "", context: str = "", options: Any = None,
                 seed: int = 0) -> None:
        if not isinstance(seed, numbers.Integral) or not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed is {seed!r}; expected a whole number of at most 64 bits")
        self.model, self.config, self.options, self.seed = model, model.config, GenerationOptions.of(options), int(seed)
        self.voice = (Voice(model.default_voice.float().cpu()) if voice is None else Voice.of(model, voice)).check(self.config)
        guidance = self.options.voice_guidance
        guidance = self.config.speak_config.guidance if guidance is None else guidance
        self._guidance = guidance if voice is not None else 0.0  # the checkpoint's own voice needs none
        self.batch: Any = None  # the `Batch` it is in
        self.state: StreamState | None = StreamState()  # its memory; None while that lies in a row of the batch
        self.special = self.config.special_tokens
        told = as_told(self.config, instructions, context)
        self._prompt = self._tokens(" ".join([*(f"{mark} {text}" for mark, text in told.items()), "<user>"]))
        self._expected = " ".join(told.values())
        size = self._prompt.shape[1] + len(self.voice.latents)
        if size > self.config.max_prompt:
            raise ValueError(f"the prompt takes {size} positions ({self._prompt.shape[1]} of text, {len(self.voice.latents)} of voice); "
                             f"expected at most {self.config.max_prompt}: shorten the instructions or the context")
        self.closed = False
        self.reset()

    # ---------------------------------------------------------------- life

    def reset(self) -> None:
        """Back to the start: prompt and voice kept, the conversation forgotten."""
        self._check_open()
        device, state = self.model.default_voice.device, StreamState()
        self._generator = torch.Generator().manual_seed(self.seed)
        self._pending, self._resampler, self._rate = torch.zeros(0), None, 0
        self._queue: list[int] | None = None  # tokens that `read` wants said
        self.index, self.speaking, self._since, self._stopping = 0, False, 0, False
        self._unsaid, self._owing = 1.0, False  # probability that nothing new is said yet; whether the user waits for an answer
        self._told: list[Tensor] = []  # what was injected and waits for a moment when nobody speaks
        self._heard = -math.inf  # index of the newest word of the user
        self._form = self.config.optimized, self.model.dtype
        self.model.prompt(state, self._prompt.to(device), self.voice.latents[None].to(device, self.model.dtype), self._guidance)
        self.model.expect(state, self._expected)
        if self.state is None:
            self.batch.put(self, state)
        else:
            self.model.ready(state, self.options.flow_steps)
            self.state = state

    def fork(self) -> "DuplexSession":
        """A second conversation with the same past, of its own memory."""
        self._check_open()
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, batch=None, _told=list(self._told), _queue=self._queue and list(self._queue))
        twin.state = self.batch.get(self) if self.state is None else self.state.fork()
        twin._generator = torch.Generator()
        twin._generator.set_state(self._generator.get_state())
        if self._resampler is not None:
            twin._resampler = self._resampler.fork()
        return twin

    def close(self) -> None:
        """Forget everything, free the memory, and leave the batch."""
        if self.batch is not None:
            self.batch.remove(self)
        self.state, self.closed = StreamState(), True

    def __enter__(self) -> "DuplexSession":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def guided(self) -> bool:
        """Whether the backbone goes through it twice, with the voice and without."""
        return self._guidance > 0

    @contextmanager
    def _memory(self) -> Iterator[StreamState]:
        """Its memory, to be changed, wherever it lies."""
        if self.state is not None:
            yield self.state
            return
        state = self.batch.get(self)
        yield state
        self.batch.put(self, state)

    def _check_open(self) -> None:
        if getattr(self, "closed", False):
            raise ValueError("the session is closed; expected an open one: make another with model.session()")

    # ---------------------------------------------------------------- text

    def _tokens(self, text: str) -> Tensor:
        ids = self.model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return torch.tensor([ids], dtype=torch.long)

    def _word(self, token: int) -> str:
        if token in (self.special["<pad>"], self.special["<turn>"], self.special["<done>"]):
            return ""
        text = self.model.tokenizer.decode([token])
        return f" {text}" if text.startswith("<") else text

    def inject(self, text: str) -> None:
        """Context that becomes known as soon as nobody speaks, now if nobody does; it costs compute, not audio time.

        It stands between two turns, as in training: in the midst of a sentence, the model would lose the thread. Its words are likelier
        to be heard from now on.
        """
        self._check_open()
        text = as_said(self.config, text)
        tokens = self._tokens(f"<context> {text} <user>")
        if tokens.shape[1] > self.config.text_window // 2:
            raise ValueError(f"the injected text takes {tokens.shape[1]} positions; expected at most {self.config.text_window // 2}, "
                             "half of the text window: inject it in parts, or shorten it")
        with self._memory() as state:
            self.model.expect(state, text)
        self._told.append(tokens)
        self._take_in()

    def _take_in(self) -> None:
        """What was injected, unless somebody speaks: the model, or the user, whose words come less than a second apart."""
        if not self._told or self.speaking or self.index - self._heard < self.config.frame_rate:
            return
        with self._memory() as state:
            for tokens in self._told:  # one by one: together they may be more than the text window holds
                self.model.inject(state, tokens.to(self.model.default_voice.device))
        self._told = []

    def stop(self) -> None:
        """Fall silent with the next frame, in the midst of a word if need be; nothing happens while the model is silent."""
        self._check_open()
        self._stopping = self.speaking

    # ---------------------------------------------------------------- sound

    def push(self, pcm: Any, sampling_rate: int | None = None) -> list[Frame]:
        """User audio in a chunk of any size -> the frames that are now complete.

        Args:
            pcm: float or int16, mono [N] or stereo [N, 2].
            sampling_rate: of `pcm`; None: the model's.
        """
        self.hear(pcm, sampling_rate)
        return self.frames()

    def frames(self) -> list[Frame]:
        """The frames that are due by what was heard."""
        self._check_open()
        if self.state is None:
            return self.batch.frames([self])[0]
        frames = []
        while self.frame_is_due:
            frames.append(self._step())
        return frames

    def hear(self, pcm: Any, sampling_rate: int | None = None) -> None:
        """Take user audio in, as `push` does, and answer nothing yet."""
        self.take(*self.checked(pcm, sampling_rate))

    def checked(self, pcm: Any, sampling_rate: int | None = None) -> tuple[Tensor, int]:
        """User audio as `push` takes it -> mono, and its rate; raises where something is wrong with it, before anything is remembered."""
        self._check_open()
        if self._form != (self.config.optimized, self.model.dtype):
            form = self.config.optimized or self.model.dtype
            raise ValueError(f"the model became {form} after this session had begun; expected a session made after "
                             "`optimize`, or reset since: its memory has another form")
        return to_mono(pcm), self.config.sampling_rate if sampling_rate is None else check_rate(sampling_rate)

    def take(self, chunk: Tensor, rate: int) -> None:
        """Take in what was `checked`."""
        if rate != self._rate:
            rest = self._resampler.flush() if self._resampler is not None else torch.zeros(0)
            self._resampler, self._rate = StreamingResampler(rate, self.config.sampling_rate), rate
            self._pending = torch.cat([self._pending, rest])
        self._pending = torch.cat([self._pending, self._resampler.push(chunk)])

    @property
    def frame_is_due(self) -> bool:
        """Whether the audio of a whole frame is there."""
        return len(self._pending) >= self.config.frame_size

    def converse(self, audio: Any, *, progress: bool = False) -> Reply:
        """Push a recording (path or (array, rate)), then silence until the answer is finished."""
        samples, rate = load_audio(audio)
        user = resample(samples, rate, self.config.sampling_rate)
        size = self.config.frame_size
        user = torch.cat([user, torch.zeros(-len(user) % size)])
        pieces: Any = user.split(size)
        if progress:
            from tqdm import tqdm

            pieces = tqdm(pieces, desc="conversing", unit="frame")
        frames = [frame for piece in pieces for frame in self.push(piece)]
        silent, limit = 0, self.options.max_wait_seconds * self.config.frame_rate
        answered = self.speaking
        last = len(frames) + limit + (self.options.max_answer_seconds + 1) * self.config.frame_rate  # should it never fall silent
        while len(frames) < last and (self.speaking or silent < (limit if not answered else 6)):
            frames += self.push(torch.zeros(size))
            answered = answered or self.speaking
            silent = 0 if self.speaking else silent + 1
        sound = torch.cat([f.audio for f in frames])
        return Reply(sound, torch.cat([user, torch.zeros(len(sound) - len(user))]), self.config.sampling_rate, frames)

    def read(self, text: str) -> Iterator[Tensor]:
        """Say `text`: the words are given, their times and sound are the model's.

        The text lane holds them before they are said, as if a user had asked for them: as in a conversation, where the LLM knows
        what comes next.
        """
        half = self.config.text_window // 2 - 8  # a part is asked for and said; room for the request and the marks of the turn
        parts = in_parts(as_said(self.config, text), lambda part: self._tokens(part).shape[1], half)
        if not parts:
            raise ValueError(f"text is {text!r}, which has nothing to say; expected at least one word")
        for part in parts:
            with self._memory() as state:
                self.model.inject(state, self._tokens(f"{ASK_TO_READ} {part}").to(self.model.default_voice.device))
            words = [self.special["<turn>"], *self._tokens(part)[0].tolist(), self.special["<done>"]]
            yield from self._say(words)
            if words:  # it was stopped
                return

    def _say(self, tokens: list[int]) -> Iterator[Tensor]:
        """One turn whose words are given, which are taken out of `tokens` as they are said."""
        self._queue = tokens
        silence = torch.zeros(self.config.frame_size)
        try:
            while self._queue:
                yield from (frame.audio for frame in self.push(silence))
        finally:  # also if whoever listens leaves in the midst of it
            self._queue, self._stopping = None, self.speaking
        for _ in range(2):  # the last sound dies away
            yield from (frame.audio for frame in self.push(silence))

    # ---------------------------------------------------------------- one frame

    def _step(self) -> Frame:
        began, like = time.perf_counter(), self.model.default_voice
        audio, noise = (part[None].to(like.device) for part in self.next_inputs())
        steps = self.options.flow_steps
        out = self.model.step(audio, self.state, noise.to(like), flow_steps=steps, choose=self.choose)
        return self.follow(out, 0, began)

    def next_inputs(self) -> tuple[Tensor, Tensor]:
        """Audio [samples per frame] and noise [L] of the next frame, which must be due."""
        size, temperature = self.config.frame_size, self.options.noise_temperature
        temperature = self.config.speak_config.temperature if temperature is None else temperature
        audio, self._pending = self._pending[:size], self._pending[size:]
        return audio, torch.randn(self.config.latent_dim, generator=self._generator) * temperature**0.5

    def follow(self, out: Any, row: int, began: float) -> Frame:
        """What row `row` of a StepOutput means for this conversation; `began`: when its frame was complete."""
        token, user_token = int(out.own_text[row]), int(out.user_text[row])
        with torch.inference_mode(False):
            sound = out.audio[row].float().cpu().clone()  # the caller's own, to do with what they like
            if self.index == 0:  # the vocoder begins from nothing: its first edge would be heard as a click
                sound *= torch.linspace(0, 1, len(sound)).square()
        heard = user_token > 0 and not self.speaking
        self._owing = (self._owing or heard) and token != self.special["<turn>"]
        if token or heard or not (self.speaking or self._owing):
            self._unsaid = 1.0
        if token == self.special["<turn>"]:
            self.speaking, self._since = True, self.index
        elif token == self.special["<done>"]:
            self.speaking = self._stopping = False
        spent, words = time.perf_counter() - began, (self._word(token), self._word(user_token))
        frame = Frame(self.index, sound, *words, self.speaking, float(out.turn_probability[row]), spent)
        self.index += 1
        if user_token > 0:
            self._heard = self.index
        self._take_in()
        return frame

    def choose(self, logits: Tensor) -> Tensor:
        """Own token from logits [1, V]: turns open before words and close after them."""
        if self._queue is not None:
            return self._next_given(logits)
        special, allowed = self.special, torch.ones_like(logits, dtype=torch.bool)
        if self.speaking:
            for name in ("<turn>", "<user>", "<instructions>", "<context>"):
                allowed[:, special[name]] = False
            if self._stopping or (self.index - self._since) / self.config.frame_rate > self.options.max_answer_seconds:
                return torch.full_like(logits[:, 0], special["<done>"], dtype=torch.long)
        else:
            allowed[:] = False
            allowed[:, [special["<pad>"], special["<turn>"]]] = True
        logits = logits.masked_fill(~allowed, float("-inf"))
        if not self._something_new(logits):
            return torch.zeros_like(logits[:, 0], dtype=torch.long)
        logits[:, 0] = float("-inf")
        if self.options.text_temperature == 0:
            return logits.argmax(-1)
        weights = (logits / self.options.text_temperature).softmax(-1).cpu()
        return torch.multinomial(weights, 1, generator=self._generator)[:, 0].to(logits.device)

    def _something_new(self, logits: Tensor) -> bool:
        """Whether a new token is due, by the logits [1, V] of this frame and of those since the newest word.

        A frame's probability of news is that of this frame if there was none before. Where the model is unsure of the time, it is small in
        every frame, and by the frame alone the moment would pass for ever; so what counts is the probability that news has come by now.
        """
        self._unsaid *= float(logits.softmax(-1)[0, 0])
        return 1 - self._unsaid >= self.options.say_threshold

    def _next_given(self, logits: Tensor) -> Tensor:
        """The next given token as soon as the model would say anything new, or has said nothing for 1.6 s."""
        if self._stopping:
            self._queue = []
            return torch.full_like(logits[:, 0], self.special["<done>"], dtype=torch.long)
        pad, late = self.special["<pad>"], self.index - self._since > 20
        wanted = [self._queue[0]] if self._queue else []
        ready = wanted and (late or not self.speaking or self._something_new(logits))
        if ready and wanted[0] == self.special["<done>"] and not late:  # the end has a sound of its own: silence
            ready = logits[0, wanted[0]] > logits[0, pad]
        if not ready:
            return torch.full_like(logits[:, 0], pad, dtype=torch.long)
        self._since = self.index
        return torch.tensor([self._queue.pop(0)], device=logits.device)
