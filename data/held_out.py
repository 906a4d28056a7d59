"""What the training data must never hold, chosen by a fixed hash: the same in every run, process and seed."""

from zlib import crc32

import numpy as np

SPLITS = ("train", "test")


def is_held_out(key: str, percent: int = 8) -> bool:
    """True for about `percent` % of all keys; a key names one combination, e.g. `sum|seven plus five`."""
    return crc32(f"michiai|{key}".encode()) % 100 < percent


def belongs(key: str, split: str, percent: int = 8) -> bool:
    """Whether a combination may be used in this split."""
    return is_held_out(key, percent) == (split == "test")


def pick(rng: np.random.Generator, items):
    """One of `items` (a sequence), each as likely."""
    return items[int(rng.random() * len(items))]


def pick_form(rng: np.random.Generator, forms: dict[str, tuple[str, ...]], split: str) -> str:
    """A question form: the held-out ones stand in the test split alone."""
    return pick(rng, forms[split])
