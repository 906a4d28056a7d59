"""What is asked: held-out questions, spoken by held-out voices, with the exact end of the speech.

Item i depends on (seed, behaviour, i) alone. Topics take turns, so that each is asked equally often. Half of
the items are heard through a microphone: room, gain and noise as in the data (`michiai.data.augment`).
"""

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from michiai.data.augment import microphone
from michiai.data.grammar import TOPICS, Question, Script, is_right, make_script
from michiai.data.held_out import pick
from michiai.data.tts import LEVEL, RATE, VoiceSpec, join, sample_voice, synthesise
from michiai.data.words import sentence_of

LEAD = (0.5, 6.0)  # seconds of silence before the user speaks: a visitor looks at the page first
NOISES = ("none", "white", "pink", "brown", "hum")
CLEAR = ("slt", "rms")  # the voices that the recogniser of `say` understands
DEFAULT = VoiceSpec("kokoro", "heart", "F", 1.0, 200, 0.9, 1.0)  # the voice that nano has where none is given
PAUSE = (0.6, 1.8)


@dataclass(frozen=True)
class Span:
    """A piece of user speech in seconds; of a turn with pauses, one of its parts."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Item:
    """One question with everything that its judges need; audio float32 at RATE."""

    index: int
    topic: str
    script: Script
    question: Question
    user: np.ndarray
    spans: tuple[Span, ...]  # of the user's speech, in order
    asked_at: float  # start of the judged turn
    user_voice: VoiceSpec
    model_voice: VoiceSpec
    reference: np.ndarray | None  # None: the model's default voice
    noisy: bool

    @property
    def end(self) -> float:
        """Seconds at which the user has finished."""
        return self.spans[-1].end

    @property
    def heard(self) -> str:
        return " ".join(span.text for span in self.spans)

    def right(self, text: str) -> bool:
        return is_right(self.question, text)


def rng_of(seed: int, kind: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(kind.encode()), index])


def model_voice(rng: np.random.Generator) -> VoiceSpec:
    """A held-out voice for the model to imitate, one of the CLEAR."""
    while True:
        voice = sample_voice(rng, "test", "model")
        if voice.name in CLEAR:
            return voice


def reference(rng: np.random.Generator, voice: VoiceSpec) -> np.ndarray:
    """3 to 4 s of the voice."""
    audio = np.zeros(0, np.float32)
    while len(audio) < 3 * RATE:
        audio = np.concatenate([audio, synthesise(sentence_of(rng, "test"), voice).audio])
    return audio[: 4 * RATE]


def choose_script(rng: np.random.Generator, behaviour: str, topic: str) -> tuple[Script, Question]:
    """A script of the behaviour and the first question in it that can be asked."""
    while True:
        script = make_script(rng, "test", behaviour, topic)
        for question in script.questions:
            turns = script.turns[: question.turn + 1]
            if behaviour == "pause":
                fits = question.turn == 0 and "<pause>" in turns[0].text
            elif behaviour == "barge_in":
                fits = question.turn == 2 and turns[2].timing == "interrupt"
            elif behaviour == "user_backchannel":
                fits = question.turn == 0 and script.turns[2].timing == "backchannel"
            else:
                fits = all(turn.timing == "after" for turn in turns)
            if fits:
                return script, question


def place(
    script: Script, turns: list[int], voice: VoiceSpec, lead: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[Span], float]:
    """Some user turns with room for the answers between them -> (audio, spans, start of the last turn)."""
    parts: list = [lead]
    spans: list[Span] = []
    now = asked_at = lead
    for number, turn in enumerate(turns):
        if number:
            gap = 2.2 + 0.42 * len(script.turns[turn - 1].text.split())
            parts.append(gap)
            now += gap
        asked_at = now
        for i, text in enumerate(script.turns[turn].text.split("<pause>")):
            if i:
                gap = float(rng.uniform(*PAUSE))
                parts.append(gap)
                now += int(gap * RATE) / RATE
            speech = synthesise(text.strip(), voice)
            parts.append(speech)
            words = " ".join(word for word in text.split() if not word.startswith("<"))
            spans.append(Span(now + speech.words[0][1], now + speech.words[-1][2], words))
            now += len(speech.audio) / RATE
    return join(parts).audio, spans, asked_at


def make_item(seed: int, index: int, behaviour: str = "plain") -> Item:
    """Item `index` of a behaviour; of a barge-in or backchannel, `user` is the question before it."""
    rng = rng_of(seed, behaviour, index)
    topic = tuple(TOPICS)[index % len(TOPICS)]
    script, question = choose_script(rng, behaviour, topic)
    voice, own = sample_voice(rng, "test", "user"), model_voice(rng)
    last = 0 if behaviour == "barge_in" else question.turn
    turns = [i for i, turn in enumerate(script.turns[: last + 1]) if turn.who == "user"]
    lead = round(rng_of(seed, f"{behaviour} lead", index).uniform(*LEAD), 3)
    user, spans, asked_at = place(script, turns, voice, lead, rng)
    noisy = bool(rng.random() < 0.5)
    if noisy:
        user = microphone(user, rng, pick(rng, NOISES), LEVEL, None, noisy=False)
    return Item(
        index,
        topic,
        script,
        question,
        np.clip(user, -0.999, 0.999).astype(np.float32),
        tuple(spans),
        asked_at,
        voice,
        own,
        reference(rng, own),
        noisy,
    )


def in_default_voice(item: Item) -> Item:
    """The same question to a model that was given no voice."""
    return replace(item, model_voice=DEFAULT, reference=None)
