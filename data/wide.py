"""Wide speech: what the listen head hears beside the domain, so that it learns how any word sounds.

In the domain alone it learns to guess: a name that it never met becomes one that it knows. Half of the utterances are
sentences of public dialogues, half are random words of them, so that nothing can be guessed.
"""

import gzip
import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

from .held_out import pick
from .script import Script, Turn
from .words import TEST_NAMES

LENGTH = (2, 9)  # words of an utterance
COMMON = 6  # a word met so often in the texts is one
TURNS = 18  # at most, from one dialogue: no source fills the list


@lru_cache(1)
def read_texts(folder: Path, limit: int = 400_000) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(sentences, words) in spoken form of the `*.jsonl.gz` dialogues of a folder, without the held-out names."""
    sentences: list[str] = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                texts = [turn["text"] for turn in json.loads(line)["turns"][:TURNS]]
                sentences += [s for text in texts for s in spoken_sentences(text)]
                if len(sentences) > limit:
                    break
    if not sentences:
        raise ValueError(f"--text is {str(folder)!r}, which holds no dialogues; expected *.jsonl.gz with a list of `turns` a line")
    counts = Counter(word for sentence in sentences for word in sentence.split())
    return tuple(sentences), tuple(sorted(word for word, n in counts.items() if n >= COMMON and len(word) > 1))


def spoken_sentences(text: str) -> list[str]:
    """The sentences and clauses of `text` that are made of plain words alone; what has no vowel is an abbreviation."""
    held_out = set(TEST_NAMES)
    parts = [part.strip().lower().replace("\u2019", "'") for part in re.split(r"[.,!?;:()\n\[\]\"]+", text)]
    found = [part for part in parts if re.fullmatch(r"[a-z]+(?:'[a-z]+)?(?: [a-z]+(?:'[a-z]+)?)*", part)]
    found = [part for part in found if all(re.search("[aeiouy]", word) for word in part.split())]
    return [part for part in found if LENGTH[0] <= part.count(" ") + 1 <= LENGTH[1] and held_out.isdisjoint(re.split("[ ']", part))]


def dictation(rng: np.random.Generator, folder: Path) -> Script:
    """A user who says two to four things that are no questions; nobody answers."""
    sentences, words = read_texts(folder)

    def utterance() -> str:
        if rng.random() < 0.5:
            return pick(rng, sentences)
        return " ".join(pick(rng, words) for _ in range(int(rng.integers(2, 7))))

    turns = tuple(Turn("user", utterance()) for _ in range(int(rng.integers(2, 5))))
    return Script("dictation", "", "", turns, ())
