"""Rare words, met more often than they are said."""

from collections import Counter

import numpy as np


class RareWords:
    """Draws texts, some of them for their rare words.

    A word that stands n times in all texts counts n^-1/2, the root by which word2vec thins out the frequent ones (arXiv 1310.4546).

    Args:
        texts: the words of each; a text may be empty.
        share: of the draws that go by rarity; the others are uniform.
    """

    def __init__(self, texts: list[list[str]], share: float = 0.5) -> None:
        self.rarity = {word: n**-0.5 for word, n in Counter(word for text in texts for word in text).items()}
        weights = np.array([sum(map(self.rarity.__getitem__, text)) for text in texts])
        share = share if weights.any() else 0.0
        self.chances = share * weights / max(weights.sum(), 1.0) + (1 - share) / len(texts)

    def draw(self, rng: np.random.Generator, n: int) -> list[int]:
        """Numbers of `n` texts."""
        return rng.choice(len(self.chances), n, p=self.chances).tolist()

    def draw_word(self, rng: np.random.Generator, words: list[str]) -> int:
        """Which of `words` of a text, by their rarity alone."""
        weights = np.array([self.rarity[word] for word in words])
        return int(rng.choice(len(words), p=weights / weights.sum()))
