"""One question and its answer, before they stand in a dialogue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exchange:
    """`ask` of the user, `reply` of the model; `accept` is empty where the reply is not judged."""

    kind: str
    ask: str
    reply: str
    accept: tuple[str, ...] = ()
