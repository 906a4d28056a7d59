"""Where a speaker may pause without having finished: after a word that needs another one."""

import numpy as np

from .held_out import pick

PAUSE = "<pause>"
OPEN_WORDS = frozenset(
    """
a an the of to from in on at by for with and plus minus times after before is are was does do did has have
my your what which who whose how where when why many much can could say spell repeat count comes please
tell will what's
""".split()
)
HESITATIONS = ("um", "uh", "er")


def with_pause(rng: np.random.Generator, text: str, hesitate: bool = True) -> str | None:
    """`text` with a pause or two, never where a whole question was said; None if there is no such place."""
    words = text.split()
    places = [i for i in range(1, len(words)) if is_open(words[:i])]
    if not places:
        return None
    chosen = {pick(rng, places)}
    if rng.random() < 0.15:
        chosen.add(pick(rng, places))
    for i in sorted(chosen, reverse=True):
        words[i:i] = [pick(rng, HESITATIONS), PAUSE] if hesitate and rng.random() < 0.25 else [PAUSE]
    return " ".join(words)


def is_open(words: list[str]) -> bool:
    """Whether the words so far cannot be a whole question: they need another word, or are "what <noun>"."""
    if len(words) == 2 and words[0] in ("what", "which", "how") and words[1] not in ("else",):
        return True
    return words[-1] in OPEN_WORDS
