"""The text-only form of a dialogue: what the language model learns from before it hears anything."""

from zlib import crc32

import numpy as np

from .grammar import Script


def without_pauses(text: str) -> str:
    return " ".join(word for word in text.split() if word != "<pause>")


def dialogue_text(script: Script, rng: np.random.Generator | None = None) -> str:
    """`<instructions> ... <context> ... <user> question <turn> answer <done> <user> ...`

    Backchannels are left out: they take no turn. An answer that the user interrupts ends at a random word,
    drawn from `rng` or else from the text itself. Injected texts stand where they arrive, behind `<context>`.
    """
    parts = []
    if script.instructions:
        parts.append(f"<instructions> {script.instructions}")
    if script.context:
        parts.append(f"<context> {script.context}")
    injections = dict(script.injections)
    for i, turn in enumerate(script.turns):
        if i in injections:
            parts.append(f"<context> {injections[i]}")
        if turn.timing == "backchannel":
            continue
        if turn.who == "user":
            parts.append(f"<user> {without_pauses(turn.text)}")
            continue
        text = turn.text
        if i + 1 < len(script.turns) and script.turns[i + 1].timing == "interrupt":
            words = text.split()
            fraction = rng.random() if rng is not None else crc32(repr(script.turns).encode()) / 2**32
            text = " ".join(words[: 1 + int(fraction * (len(words) - 1))])
        parts.append(f"<turn> {text} <done>")
    return " ".join(parts)
