"""What goes into a conversation beside sound, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class GenerationOptions:
    """How to generate; nothing here is a weight."""

    flow_steps: int = 1  # evaluations of the velocity network per frame
    noise_temperature: float | None = None  # variance of the flow's noise; None, here and below: as the checkpoint says
    voice_guidance: float | None = None  # how far beyond its latents a given voice goes: nearer to it, less clear; not 0: slower
    text_temperature: float = 0.0  # 0: the most likely token
    say_threshold: float = 0.5  # a token is said once it would have been said by now with this probability: 0.5 is the median of its time
    max_answer_seconds: float = 20.0  # an answer that goes on longer is ended
    max_wait_seconds: float = 3.0  # `converse` waits so long for an answer to begin

    def __post_init__(self) -> None:
        if not isinstance(self.flow_steps, int) or not 1 <= self.flow_steps <= 1000:
            raise ValueError(f"flow_steps is {self.flow_steps!r}; expected a whole number from 1 to 1000 (1 is trained for)")
        for name in ("noise_temperature", "voice_guidance", "text_temperature", "say_threshold", "max_answer_seconds", "max_wait_seconds"):
            value = getattr(self, name)
            if value is None and name in ("noise_temperature", "voice_guidance"):  # as the checkpoint says
                continue
            if not (isinstance(value, int | float) and 0 <= value < 1e6):
                raise ValueError(f"{name} is {value!r}; expected a number of 0 or more")
        if 0 < self.text_temperature < 1e-3:
            raise ValueError(f"text_temperature is {self.text_temperature!r}; expected 0 (the most likely token) or 0.001 and more")
        if not 0 < self.say_threshold < 1:
            raise ValueError(f"say_threshold is {self.say_threshold!r}; expected a probability between 0 and 1, not these themselves")

    @classmethod
    def of(cls, options: Any) -> "GenerationOptions":
        """Options as they are, by name, or the usual ones."""
        if options is None or hasattr(options, "flow_steps"):
            return options or cls()
        known = [option.name for option in fields(cls)]
        if not isinstance(options, Mapping) or not set(options) <= set(known):
            raise ValueError(f"options are {options!r}; expected GenerationOptions, or a dict of some of {', '.join(known)}")
        return cls(**options)


@dataclass(frozen=True)
class Frame:
    """80 ms of conversation."""

    index: int
    audio: Tensor  # float32 [samples per frame], the model's sound
    text: str  # own text that became known, with its leading space
    user_text: str  # heard text that became known, with its leading space
    speaking: bool  # between <turn> and <done>
    turn_probability: float  # that the user has finished
    compute_seconds: float  # from the frame's last sample to the answer's first


@dataclass(frozen=True)
class Reply:
    """A whole conversation with a recording."""

    audio: Tensor  # float32 [N], time-synchronous with the input, plus the tail
    user_audio: Tensor  # float32 [N], the input at the model's rate, silence in the tail
    sampling_rate: int
    frames: list[Frame] = field(repr=False)

    @property
    def text(self) -> str:
        return "".join(f.text for f in self.frames).strip()

    @property
    def user_text(self) -> str:
        return "".join(f.user_text for f in self.frames).strip()

    def transcript(self) -> list[tuple[float, float, str, str]]:
        """Utterances of both sides in order of their start: (start, end in seconds, "user" or "michi", text).

        The model's times are those of its turn; the user's are those of the words becoming known.
        """
        step, first = (len(self.frames[0].audio) / self.sampling_rate, self.frames[0].index) if self.frames else (0.0, 0)
        rows: list[list] = []
        last: dict[str, list] = {}
        for frame in self.frames:
            now = (frame.index - first) * step
            for who, text in (("user", frame.user_text), ("michi", frame.text)):
                row = last.get(who)
                go_on = row is not None and now - row[1] < (1.0 if who == "user" else 0.5 * step + step)
                if who == "michi" and frame.speaking and row is not None and go_on:
                    row[1] = now + step
                if text:
                    if not go_on:
                        row = last[who] = [now, now, who, ""]
                        rows.append(row)
                    row[1], row[3] = now + step, row[3] + text
        return [(a, b, who, text.strip()) for a, b, who, text in rows]


@dataclass(frozen=True)
class Transcript:
    """What was heard: `words` as (word, time in seconds at which it ended)."""

    text: str
    words: list[tuple[str, float]]
