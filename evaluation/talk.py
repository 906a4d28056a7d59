"""Conversations in real time: what the user says may depend on what was heard so far (barge-in, echo)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .items import RATE, Item
from .referees import LOUD, at_rate, segments

LONGEST = 14.0  # seconds that an answer may last; the alphabet takes 12
Hear = Callable[
    [int, list[Any]], np.ndarray | None
]  # (frame number, frames so far) -> user samples of the frame, None: the end


@dataclass(frozen=True)
class Talk:
    """Frames of a conversation with the model's sound."""

    frames: list[Any]
    rate: int

    @property
    def audio(self) -> np.ndarray:
        return (
            torch.cat([frame.audio for frame in self.frames]).numpy()
            if self.frames
            else np.zeros(0, np.float32)
        )

    @property
    def step(self) -> float:
        """Seconds per frame."""
        return len(self.frames[0].audio) / self.rate

    def text(self, start: float = 0.0, end: float = float("inf")) -> str:
        """Own text that became known between two times."""
        return "".join(f.text for f in self.frames if start <= f.index * self.step < end).strip()

    @property
    def user_text(self) -> str:
        return "".join(frame.user_text for frame in self.frames).strip()

    def sounds(self) -> list[tuple[float, float]]:
        return segments(self.audio, self.rate)

    def starts(self) -> list[float]:
        """Times at which turns begin."""
        speaking = [False] + [frame.speaking for frame in self.frames]
        return [i * self.step for i in range(len(self.frames)) if speaking[i + 1] and not speaking[i]]

    def piece(self, start: float, end: float) -> np.ndarray:
        """The model's sound between two times, at RATE."""
        return at_rate(self.audio[int(max(0.0, start) * self.rate) : int(end * self.rate)], self.rate)


def talk(session: Any, hear: Hear) -> Talk:
    """Push frames until `hear` ends the conversation."""
    frames: list[Any] = []
    while (user := hear(len(frames), frames)) is not None:
        frames += session.push(torch.from_numpy(np.ascontiguousarray(user, dtype=np.float32)))
    return Talk(frames, session.config.sampling_rate)


def at_model_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    from michiai.processing_michiai import resample

    return audio if rate == RATE else resample(torch.from_numpy(audio), RATE, rate).numpy()


class Script:
    """The user's side: pieces of audio at given frames, then silence until nothing happens any more.

    Args:
        audio: float32 [N] from the first frame on.
        patience: seconds of a silent model after all user audio that end the conversation.
        limit: seconds after which it ends anyway.
    """

    def __init__(
        self, audio: np.ndarray, frame: int, rate: int, *, patience: float = 3.0, limit: float = 40.0
    ) -> None:
        self.audio, self.frame, self.rate = audio, frame, rate
        self.patience, self.limit = patience, limit
        self.spoke = 0  # last frame at which anybody spoke

    def add(self, audio: np.ndarray, at: int) -> None:
        """Mix `audio` in from frame `at` on."""
        first = at * self.frame
        grown = np.zeros(max(len(self.audio), first + len(audio)), np.float32)
        grown[: len(self.audio)] = self.audio
        grown[first : first + len(audio)] += audio
        self.audio = grown

    def __call__(self, index: int, frames: list[Any]) -> np.ndarray | None:
        if index * self.frame < len(self.audio) or (frames and frames[-1].speaking):
            self.spoke = index
        seconds = self.frame / self.rate
        if (index - self.spoke) * seconds > self.patience or index * seconds > self.limit:
            return None
        piece = self.audio[index * self.frame : (index + 1) * self.frame]
        return np.pad(piece, (0, self.frame - len(piece)))


def script_of(listener: Any, audio: np.ndarray, **options: float) -> Script:
    """The user's side for `audio` at RATE, towards a model or a session."""
    config = listener.config
    return Script(
        at_model_rate(audio, config.sampling_rate), config.frame_size, config.sampling_rate, **options
    )


def is_loud(frame: Any) -> bool:
    return float(frame.audio.square().mean().sqrt()) > LOUD


def open_session(model: Any, item: Item, seed: int, **options: Any) -> Any:
    """A session with the item's prompt and voice."""
    from michiai.session_michiai import GenerationOptions

    voice = None if item.reference is None else model.voice((item.reference, RATE))
    return model.session(
        voice=voice,
        instructions=item.script.instructions,
        context=item.script.context,
        options=GenerationOptions(max_answer_seconds=LONGEST, **options),
        seed=seed + item.index,
    )
