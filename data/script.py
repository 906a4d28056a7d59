"""What a script consists of, and whether a reply answers a question."""

import re
from dataclasses import dataclass, field

from .words import NUMBER_WORDS


@dataclass(frozen=True)
class Turn:
    """Something said. `text` may hold <laugh>, <breath>, <cough> and, of the user, <pause>."""

    who: str  # user | model
    text: str
    timing: str = "after"  # after | soon (after oneself) | interrupt | overlap | backchannel (inside the turn before it)


@dataclass(frozen=True)
class Question:
    """A judged question: right if one of `accept` stands as a word sequence in the reply."""

    turn: int  # index of the user's turn
    kind: str
    accept: tuple[str, ...]


@dataclass(frozen=True)
class Script:
    """One dialogue before it is spoken."""

    behaviour: str
    instructions: str
    context: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    injections: tuple[tuple[int, str], ...] = ()  # (index of the turn before which the text arrives, text)
    notes: dict = field(default_factory=dict)


def normalise(text: str) -> list[str]:
    """Lower-case words of a reply; special tokens count as words, punctuation does not."""
    return re.sub(r"[^a-z<>' ]", " ", text.lower().replace("\u2019", "'")).split()


def _continues(neighbour: list[str], edge: str) -> bool:
    """Whether the word beside an accepted string makes it another number, time or spelling."""
    if not neighbour:
        return False
    if edge in NUMBER_WORDS:
        return neighbour[0] in NUMBER_WORDS or neighbour[0] == "past"
    return len(edge) == 1 and len(neighbour[0]) == 1


def is_right(question: Question, reply_text: str) -> bool:
    """Whether an accepted string stands in the reply as a word sequence.

    A number or spelling must stand alone ("twenty" is not right where "twenty one" is said), and a repetition
    must be nothing else, since its words are those of the question.
    """
    words = normalise(reply_text)
    for accept in question.accept:
        wanted = accept.split()
        if question.kind == "repeat":
            if [w for w in words if w[0] != "<"] == wanted:
                return True
            continue
        for i in range(len(words) - len(wanted) + 1):
            if words[i : i + len(wanted)] != wanted:
                continue
            before, after = words[i - 1 : i] if i else [], words[i + len(wanted) : i + len(wanted) + 1]
            if not (_continues(before, wanted[0]) or _continues(after, wanted[-1])):
                return True
    return False
