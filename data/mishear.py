"""What a listener makes of words that it does not quite catch, so that the language model learns to answer them all the same.

The language model reads what the listen head wrote. That is not what was said: a name becomes one that sounds like it, an unusual
word a usual one. Here the same happens to text, without any sound.
"""

from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache

import numpy as np

from .held_out import pick
from .script import Script
from .words import ACTIONS, ADJECTIVES, COMMON_NAMES, FOODS, MOVES, THINGS, TRAIN_NAMES

CLEAN = 0.4  # share of scripts that are heard well
CHANCE = 0.15  # that a word is not, in the others
USUAL = tuple(dict.fromkeys(THINGS + ADJECTIVES + ACTIONS + MOVES + FOODS + COMMON_NAMES))
NAMES = frozenset(TRAIN_NAMES)
LETTERS_ALIKE = ("aeiouy", "aeiou", "bpdtgkc", "mn", "szc", "fv", "lrw", "dt", "gk")


@lru_cache(50_000)
def _like(word: str) -> tuple[str, ...]:
    """Usual words that look like `word`, none of them itself."""
    return tuple(w for w in get_close_matches(word, USUAL, n=6, cutoff=0.55) if w != word)


def _blurred(rng: np.random.Generator, word: str) -> str:
    """The word with one letter, in long words up to a quarter of them, lost, doubled or taken for a similar one; or a vowel put in."""
    letters = list(word)
    for _ in range(1 + int(rng.random() * len(word) / 4)):
        i, roll = int(rng.integers(len(letters))), rng.random()
        alike = [group for group in LETTERS_ALIKE if letters[i] in group]
        if roll < 0.7 and alike:
            letters[i] = pick(rng, pick(rng, alike))
        elif roll < 0.85 and len(letters) > 2:
            del letters[i]
        else:
            letters.insert(i, pick(rng, "aeiouy") if rng.random() < 0.6 else letters[i])
    return "".join(letters)


def mishear(rng: np.random.Generator, text: str, keep: frozenset[str] = frozenset(), chance: float = CHANCE) -> str:
    """`text` with each word misheard by a `chance`: blurred, taken for a usual one, lost, or run into the next; those in `keep` never."""
    heard: list[str] = []
    for word in text.split():
        if word in keep or word.startswith("<") or rng.random() > chance:
            heard.append(word)
            continue
        roll = rng.random()
        if roll < 0.4 and len(word) > 2:
            heard.append(_blurred(rng, word))
        elif roll < 0.75 and _like(word):
            heard.append(pick(rng, _like(word)))
        elif roll < 0.85 and heard and heard[-1] not in keep and not heard[-1].startswith("<"):
            heard[-1] = _blurred(rng, heard[-1] + word)
        elif roll > 0.93 and len(word) < 5:
            continue
        else:
            heard.append(word)
    return " ".join(heard) or text


def misheard(rng: np.random.Generator, script: Script) -> Script:
    """The script as it is heard.

    What the answer must repeat and nobody but the user said stays as it is, where it cannot be guessed: names, and what is to be
    spelled or repeated. To make it up would be no hearing.
    """
    if rng.random() < CLEAN:
        return script
    questions = {question.turn: question for question in script.questions}
    told = {word for text in (script.instructions, script.context, *(t for _, t in script.injections)) for word in text.split()}
    turns = list(script.turns)
    for i, turn in enumerate(turns):
        if turn.who == "model":
            told.update(turn.text.split())
            continue
        answer = {word for following in turns[i + 1 :] if following.who == "model" for word in following.text.split()}
        asked = questions.get(i)
        if asked is None or asked.kind not in ("repeat", "spell"):
            answer = answer & NAMES - told
        elif asked.kind == "spell":
            answer = {letters.replace(" ", "") for letters in asked.accept}
        turns[i] = replace(turn, text=mishear(rng, turn.text, frozenset(answer)))
    return replace(script, turns=tuple(turns))
