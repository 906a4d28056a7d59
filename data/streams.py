"""Words with times -> one text token per frame."""

import math
from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

FRAME_RATE = 12.5


@lru_cache(maxsize=100_000)
def pieces(tokenizer: PreTrainedTokenizerBase, word: str) -> tuple[int, ...]:
    """Tokens of a word; the same few thousand words come again and again."""
    return tuple(tokenizer(" " + word, add_special_tokens=False)["input_ids"])


def place_words(
    words: Iterable[tuple[str, float, float]],
    tokenizer: PreTrainedTokenizerBase,
    n_frames: int,
    *,
    at: str,
    offset_frames: int,
    frame_rate: float = FRAME_RATE,
) -> list[int]:
    """Tokens of `words` (word, start, end in seconds), one per frame, 0 where nothing is new: [n_frames].

    Args:
        at: "end": the first token of a word is due `offset_frames` frames after its last frame (heard text);
            "start": `offset_frames` frames before the frame in which it starts (own text, leading its sound).
    A frame that is taken pushes a token later; what falls behind the last frame is dropped.
    """
    if at not in ("end", "start"):
        raise ValueError(f"at is {at!r}; expected 'end' or 'start'")
    frames, free = [0] * n_frames, 0
    for word, start, end in words:
        if at == "end":
            due = math.ceil(end * frame_rate) - 1 + offset_frames
        else:
            due = math.floor(start * frame_rate) - offset_frames
        for token in pieces(tokenizer, word):
            free = max(free, due)
            if free >= n_frames:
                return frames
            frames[free] = token
            free += 1
    return frames
