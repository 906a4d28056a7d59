"""Wide speech: what is heard and said beside the dialogues, so that the listen and the speak head learn how any word sounds.

In the domain alone the listen head learns to guess: a word that it never met becomes one that it knows. So users also say sentences of
public dialogues, random words of them and names that nobody has, where nothing can be guessed, questions of the domain in which a rare
word is as likely as a common one, and the beginning of one with the end of another, so that how it goes on cannot be known from how it
began. Recordings of people stand beside them. In a dialogue the model is silent most of the time; in a reading it seldom is.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from .grammar import make_script
from .held_out import pick
from .script import Script, Turn
from .tts import recorded_voice, sample_voice
from .tts_recorded import is_aligned, read_recordings
from .words import TEST_NAMES, invented_names

LENGTH = (2, 9)  # words of an utterance
COMMON = 6  # a word met so often in the texts is one
NAMES = 20_000  # invented ones
TURNS = 18  # at most, from one dialogue
PERSON = 3  # words of a recording that tells a voice
READ = 36  # words of a reading, about 17 s
BEYOND = 0.5  # of a reading's sayings are of the texts, where there are any: what it is asked to say aloud may be anything
SCRIPTS = 5000  # whose questions and answers are said again
FAMILIAR = 5  # sayings that hold a word for which some are drawn: most names are in fewer
PER_SOURCE = 60_000  # sentences at most, so that no source fills the list


@lru_cache(1)
def read_texts(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(sentences, words) in spoken form of the `*.jsonl.gz` dialogues of a folder, without the held-out names."""
    sentences: list[str] = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            sentences += islice(
                (s for line in file for turn in json.loads(line)["turns"][:TURNS] for s in spoken_sentences(turn["text"])), PER_SOURCE
            )
    if not sentences:
        raise ValueError(f"--text is {str(folder)!r}, which holds no dialogues; expected *.jsonl.gz with a list of `turns` a line")
    counts = Counter(word for sentence in sentences for word in sentence.split())
    return tuple(dict.fromkeys(sentences)), tuple(sorted(word for word, n in counts.items() if n >= COMMON and len(word) > 1))


def spoken_sentences(text: str) -> list[str]:
    """The sentences and clauses of `text` that are made of plain words alone; what has no vowel is an abbreviation."""
    held_out = set(TEST_NAMES)
    parts = [part.strip().lower().replace("\u2019", "'") for part in re.split(r"[.,!?;:()\n\[\]\"]+", text)]
    found = [part for part in parts if re.fullmatch(r"[a-z]+(?:'[a-z]+)?(?: [a-z]+(?:'[a-z]+)?)*", part)]
    found = [part for part in found if all(re.search("[aeiouy]", word) for word in part.split())]
    return [part for part in found if LENGTH[0] <= part.count(" ") + 1 <= LENGTH[1] and held_out.isdisjoint(re.split("[ ']", part))]


def utterance(rng: np.random.Generator, folder: Path) -> str:
    """A sentence of the texts of a folder, or words of them in no order."""
    (sentences, words), names = read_texts(folder), invented_names(NAMES)
    if rng.random() < 0.5:
        return pick(rng, sentences)
    return " ".join(pick(rng, names if rng.random() < 0.2 else words) for _ in range(int(rng.integers(2, 7))))


def crossed(rng: np.random.Generator, one: str, other: str) -> str:
    """The first words of one text and the last of another: one of each at least."""
    first, last = one.split(), other.split()
    return " ".join(first[: int(rng.integers(1, len(first) + 1))] + last[-int(rng.integers(1, len(last) + 1)) :])


def dictation(rng: np.random.Generator, folder: Path | None) -> Script:
    """A user who says two to four things, and nobody answers: questions of the domain, drawn for their words, as often two of them
    crossed, and, where there is a folder of texts, as often utterances of these.
    """

    def question() -> str:
        return pick(rng, pick(rng, sayings_by_word("user", FAMILIAR)))

    def said() -> str:
        kind = int(rng.integers(3 if folder else 2))
        return question() if kind == 0 else crossed(rng, question(), question()) if kind == 1 else utterance(rng, folder)

    return Script("dictation", "", "", tuple(Turn("user", said()) for _ in range(int(rng.integers(2, 5)))), ())


@lru_cache(2)
def sayings_by_word(who: str, familiar: int) -> list[tuple[str, ...]]:
    """For each word that `familiar` or more of the domain's turns of `who` hold, those turns."""
    found: dict[str, list[str]] = {}
    for i in range(SCRIPTS):
        for turn in make_script(np.random.default_rng(i), "train").turns:
            if turn.who == who:
                for word in dict.fromkeys(turn.text.split()):
                    found.setdefault(word, []).append(turn.text)
    return [tuple(texts) for texts in found.values() if len(texts) >= familiar]


def reading(rng: np.random.Generator, folder: Path | None) -> Script:
    """The model alone, who reads aloud: answers of the domain without their questions, each word of them as likely to be drawn for,
    since in dialogues most words are rare; and, where there is a folder of texts, utterances of them.
    """
    answers, texts = sayings_by_word("model", FAMILIAR), []
    while sum(text.count(" ") + 1 for text in texts) < READ:
        texts.append(utterance(rng, folder) if folder and rng.random() < BEYOND else pick(rng, pick(rng, answers)))
    turns = tuple(Turn("model", text, "soon" if i else "after") for i, text in enumerate(texts))
    return Script("reading", "", "", turns, ())


def recorded(rng: np.random.Generator, folder: Path, split: str, role: str = "user") -> Script:
    """A person of the split who says one to four of the sentences that the recordings of a folder hold; nobody answers.

    As "model" they read them, all of PERSON words or more, and their voice is that of two others.
    """
    recordings, n_apart, said = read_recordings(folder, split), 0, []
    if role == "model":
        n_apart, telling = 2, [row for row in recordings if row[2].count(" ") + 1 >= PERSON]
        counts = Counter(speaker for speaker, _, _ in telling)
        recordings = [row for row in telling if counts[row[0]] > n_apart]
        if not recordings:
            raise ValueError(f"{folder} has no {split} speaker with {n_apart + 1} recordings of {PERSON} words or more; "
                             "expected that many: the model's voice is that of two others than it reads")
    n_words = np.cumsum([text.count(" ") + 1 for _, _, text in recordings])  # who said more is heard more often
    while len(said) <= n_apart:
        speaker = recordings[int(np.searchsorted(n_words, rng.integers(n_words[-1]), side="right"))][0]
        own = rng.permutation([(path, text) for who, path, text in recordings if who == speaker])
        said = list(islice((clip for clip in own if is_aligned(*clip)), n_apart + int(rng.integers(1, 5))))
    spoken = [(str(text), recorded_voice(str(path))) for path, text in said]
    apart, spoken = spoken[:n_apart], spoken[n_apart:]
    turns = tuple(Turn(role, text, "soon" if i and apart else "after") for i, (text, _) in enumerate(spoken))
    notes = {f"{role}_voices": [voice for _, voice in spoken], "reference": apart}
    return Script("reading" if apart else "dictation", "", "", turns, (), notes=notes)


def in_voices(rng: np.random.Generator, make: Callable[[np.random.Generator], Script], names: tuple[str, ...], split: str) -> Script:
    """A script of `make` whose users, or who reads it, speak in these voices of the engines alone, as in Kokoro's, which are dear."""
    script = make(rng)
    role = "user" if any(turn.who == "user" for turn in script.turns) else "model"
    voices = [sample_voice(rng, split, role, only=names) for _ in range(2 if script.notes.get("voice_change") else 1)]
    return replace(script, notes={**script.notes, f"{role}_voices": voices})
