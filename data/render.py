"""From a script to two sample-aligned channels: who starts when, who is cut off, what the microphone hears.

Timing, in seconds: the model answers RESPONSE after the user's last word, seldom later; a barge-in stops it STOP after the
user's onset (its unspoken words are dropped from its words and its turn); backchannels lie inside the turn
before them and stop nobody.
"""

from dataclasses import dataclass

import numpy as np

from . import augment
from .grammar import Script, Turn
from .held_out import pick
from .tts import LEVEL, RATE, Speech, VoiceSpec, join, sample_voice, synthesise
from .words import sentence_of

# The usual silence before something is said, and that of the LATE: a visitor looks at the page first, and whoever has let the moment
# for an answer pass must still know that one is due.
FIRST = (0.3, 1.5), (1.5, 8.0)
RESPONSE = (0.60, 0.80), (0.80, 3.0)  # earlier, and the last piece of a name is not yet heard when the answer begins
NEXT = (0.5, 1.5), (1.5, 6.0)  # after an answer, or after oneself
LATE = 0.08
SOON = (0.25, 0.6)
STOP = (0.60, 0.76)
FADE = 0.04
PAUSE = (0.6, 1.8)
IDLE = (6.0, 12.0)
SHORTEST, LONGEST = 6.0, 26.0
CHANNEL = {"user": 0, "model": 1}


@dataclass
class Placed:
    """A turn with its speech at a time; `start` and `end` are those of the speech itself."""

    who: str
    timing: str
    text: str
    at: float  # time of the first sample of `audio`
    audio: np.ndarray
    words: list[tuple[str, float, float]]  # absolute times
    index: int  # in script.turns

    @property
    def start(self) -> float:
        return self.words[0][1]

    @property
    def end(self) -> float:
        return self.words[-1][2]


@dataclass
class Dialogue:
    """`audio` float32 [2, N] at 16 kHz (0 user, 1 model); `reference` float32 [M]: the model's voice."""

    script: Script
    audio: np.ndarray
    turns: list[Placed]
    injections: list[tuple[float, str]]
    user_voices: list[VoiceSpec]
    model_voice: VoiceSpec
    reference: np.ndarray

    def words(self, who: str) -> list[tuple[str, float, float]]:
        """All words of "user" or "model" in order of time."""
        return sorted((w for turn in self.turns if turn.who == who for w in turn.words), key=lambda w: w[1])


def silence(rng: np.random.Generator, kind: tuple[tuple[float, float], tuple[float, float]]) -> float:
    """Seconds before something is said, of the kind FIRST, RESPONSE or NEXT."""
    usual, late = kind
    return rng.uniform(*(late if rng.random() < LATE else usual))


def _speech(turn: Turn, voice: VoiceSpec, rng: np.random.Generator, room: bool) -> Speech:
    """The turn spoken; <pause> is a silence, long enough for a backchannel if there is `room` for one."""
    parts: list[Speech | float] = []
    for i, text in enumerate(turn.text.split("<pause>")):
        if i:
            parts.append(rng.uniform(*((1.2, 1.9) if room else PAUSE)))
        if text.strip():
            parts.append(synthesise(text.strip(), voice))
    return join(parts)


def _gap_in(words: list[tuple[str, float, float]]) -> tuple[float, float]:
    """(start, end) of the longest silence between two words."""
    gaps = [(b[1] - a[2], a[2], b[1]) for a, b in zip(words, words[1:], strict=False)]
    return max(gaps)[1:] if gaps else (words[-1][2], words[-1][2])


class _Timeline:
    """Places turns one after the other."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.turns, self.injections = rng, [], []
        self.free = 0.0  # when the turn before is over

    def _host(self, who: str) -> Placed:
        """The latest full turn of `who`."""
        return next(t for t in reversed(self.turns) if t.who == who and t.timing != "backchannel")

    def add(self, turn: Turn, index: int, speech: Speech) -> None:
        lead = speech.words[0][1]
        start = self._start(turn, speech.words[-1][2] - lead)
        if start is None:
            return
        if turn.timing == "interrupt":
            self._cut(self._host("model"), start + self.rng.uniform(*STOP))
        at = round((start - lead) * RATE) / RATE
        words = [(w, round(s + at, 3), round(e + at, 3)) for w, s, e in speech.words]
        text = " ".join(w for w in turn.text.split() if w != "<pause>")
        self.turns.append(Placed(turn.who, turn.timing, text, at, speech.audio, words, index))
        if turn.timing != "backchannel":
            self.free = max(self.turns[-1].end, self.free if turn.timing != "interrupt" else 0)

    def _start(self, turn: Turn, length: float) -> float | None:
        """When the speech begins; None where a backchannel finds no room."""
        rng = self.rng
        if not self.turns:
            return silence(rng, FIRST)
        if turn.timing == "after":
            answer = turn.who == "model" and self._latest() == "user"
            return self.free + silence(rng, RESPONSE if answer else NEXT)
        if turn.timing == "soon":
            return self.free + rng.uniform(*SOON)
        host = self._host("model" if turn.who == "user" else "user")
        if turn.timing == "overlap":
            return max(host.end - rng.uniform(0.15, 0.5), host.start + 0.3)
        if turn.timing == "interrupt":
            return host.start + max(0.5, rng.uniform(0.2, 0.7) * (host.end - host.start))
        if turn.who == "model":
            low, high = _gap_in(host.words)
            return low + rng.uniform(0.2, 0.4) if high - low > length + 0.4 else None
        last = self.turns[-1]
        low = max(host.start + 0.8, last.end + 0.8 if last.timing == "backchannel" else 0)
        high = host.end - length - 0.5
        return rng.uniform(low, low + 0.6 * (high - low)) if high > low else None

    def _latest(self) -> str:
        return next(t.who for t in reversed(self.turns) if t.timing != "backchannel")

    def _cut(self, turn: Placed, stop: float) -> None:
        """Ends a turn at `stop` with a fade; words not finished by then were never said."""
        keep = round((stop - turn.at) * RATE)
        if keep >= len(turn.audio):
            return
        words = [w for w in turn.words if w[2] <= stop + 0.02] or turn.words[:1]
        fade = np.linspace(1, 0, round(FADE * RATE), dtype=np.float32)
        turn.audio = turn.audio[:keep].copy()
        turn.audio[-len(fade) :] *= fade[-len(turn.audio) :]
        turn.words, turn.text = words, " ".join(w[0] for w in words)


def _place(script: Script, speeches: list[Speech], count: int, seed: int) -> _Timeline:
    line = _Timeline(np.random.default_rng(seed))
    told = dict(script.injections)
    for i in range(count):
        if i in told and line.turns:
            line.free += 0.8
        line.add(script.turns[i], i, speeches[i])
        if i in told:
            line.injections.append(
                (round(max(0.0, line.turns[-1].start - line.rng.uniform(0.3, 1.0)), 3), told[i])
            )
    return line


def _fit(script: Script, speeches: list[Speech], seed: int) -> _Timeline | None:
    """As many whole exchanges as LONGEST has room for; None if not even the first has."""
    tail = IDLE[1] if script.notes.get("idle") else 1.0
    ends = [i for i, t in enumerate(script.turns) if i and t.who == "user" and t.timing == "after"] + [
        len(script.turns)
    ]
    for count in reversed(ends):
        line = _place(script, speeches, count, seed)
        if line.free + tail <= LONGEST:
            return line
    return None


def _voices(script: Script, rng: np.random.Generator, split: str) -> tuple[list[VoiceSpec], list[VoiceSpec]]:
    """Users and model: the script's own voices, or two users where the voice changes, else one, and a voice for the model.

    A recording of a person is a voice that says one thing, so that a turn of theirs has one of its own.
    """
    users, models = script.notes.get("user_voices"), script.notes.get("model_voices")
    if users is None:
        users = [sample_voice(rng, split, "user") for _ in range(2 if script.notes.get("voice_change") else 1)]
    return users, models or [sample_voice(rng, split, "model")]


def _reference(script: Script, voice: VoiceSpec, rng: np.random.Generator, split: str) -> np.ndarray:
    """Up to 4 s of the model's voice saying something else, 3 s or more where it can say anything."""
    given = script.notes.get("reference")
    audio = np.concatenate([synthesise(*said).audio for said in given or [(sentence_of(rng, split), voice)]])
    while not given and len(audio) < 3 * RATE:
        audio = np.concatenate([audio, synthesise(sentence_of(rng, split), voice).audio])
    return audio[: 4 * RATE]


def _mix(line: _Timeline, seconds: float) -> np.ndarray:
    audio = np.zeros((2, round(seconds * RATE)), np.float32)
    for turn in line.turns:
        first = round(turn.at * RATE)
        audio[CHANNEL[turn.who], first : first + len(turn.audio)] += turn.audio
    return audio


def render(script: Script, rng: np.random.Generator, split: str) -> Dialogue | None:
    """The dialogue; None if the script is too long to fit LONGEST seconds."""
    users, models = _voices(script, rng, split)
    speeches, asked, said = [], 0, 0
    for i, turn in enumerate(script.turns):
        full_user = turn.who == "user" and turn.timing != "backchannel"
        room = i + 1 < len(script.turns) and script.turns[i + 1].timing == "backchannel"
        voice = models[said % len(models)] if turn.who == "model" else users[max(asked - (not full_user), 0) % len(users)]
        asked, said = asked + full_user, said + (turn.who == "model")
        speeches.append(_speech(turn, voice, rng, room))
    line = _fit(script, speeches, int(rng.integers(2**32)))
    if line is None:
        return None
    idle = script.notes.get("idle")
    seconds = line.free + (rng.uniform(*IDLE) if idle else rng.uniform(0.5, 2.0))
    audio = _mix(line, min(max(seconds, SHORTEST), LONGEST))
    babble = None
    if script.notes.get("noise") or rng.random() < 0.5:
        kind = pick(rng, augment.KINDS)
        if kind == "babble":
            babble = [
                synthesise(sentence_of(rng, split), sample_voice(rng, split, "user")).audio for _ in range(3)
            ]
        audio[0] = augment.microphone(
            audio[0], rng, kind, LEVEL, babble, noisy=bool(script.notes.get("noise"))
        )
    if script.notes.get("echo"):
        audio[0] += augment.echo(audio[1], rng)
    np.clip(audio, -0.999, 0.999, out=audio)
    return Dialogue(script, audio, line.turns, line.injections, users, models[0], _reference(script, models[0], rng, split))
