"""A synthetic language with something to learn: Zipf's frequencies, a grammar of pairs, and topics."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SUCCESSORS = 12
"""Words that the grammar allows after each word."""
TOPICS = 4
"""Each text has one: it decides which of the grammar's tables holds."""
TEXTS = 384
TEXT_LENGTH = 768

Tokens = NDArray[np.int64]


class Language:
    """Texts of token ids, the same for the same arguments.

    With probability `noise` a word ignores the grammar and follows its frequency alone: the noise is what cannot be
    learnt, so it sets how low the loss can go. A model first learns the frequencies (ln V to about 4.5 nats at 256
    words), then the pairs (to about 3).
    """

    def __init__(self, seed: int = 0, vocab_size: int = 256, noise: float = 0.15) -> None:
        self.vocab_size = vocab_size
        chance = np.random.default_rng((seed, vocab_size, 1))
        frequency = _zipf(vocab_size)
        self._following = chance.choice(vocab_size, p=frequency, size=(TOPICS, vocab_size, SUCCESSORS))
        self._texts = self._written(chance, noise, frequency)

    def _written(self, chance: np.random.Generator, noise: float, frequency: NDArray[np.float64]) -> Tokens:
        by_frequency = np.cumsum(frequency)
        by_rank = np.cumsum(_zipf(SUCCESSORS))
        topics = chance.integers(TOPICS, size=TEXTS)
        texts = np.empty((TEXTS, TEXT_LENGTH), dtype=np.int64)
        word = np.minimum(np.searchsorted(by_frequency, chance.random(TEXTS)), self.vocab_size - 1)
        for place in range(TEXT_LENGTH):
            texts[:, place] = word
            rank = np.minimum(np.searchsorted(by_rank, chance.random(TEXTS)), SUCCESSORS - 1)
            stray = np.minimum(np.searchsorted(by_frequency, chance.random(TEXTS)), self.vocab_size - 1)
            ruled = self._following[topics, word, rank]
            word = np.where(chance.random(TEXTS) < noise, stray, ruled)
        return texts

    def windows(self, chance: np.random.Generator, count: int, length: int) -> Tokens:
        """`count` random windows of `length` + 1 tokens, (count, length + 1): inputs and the targets beyond them."""
        texts = chance.integers(TEXTS, size=count)
        starts = chance.integers(TEXT_LENGTH - length, size=count)
        windows: Tokens = self._texts[texts[:, None], starts[:, None] + np.arange(length + 1)]
        return windows


@lru_cache(maxsize=16)
def language(seed: int = 0, vocab_size: int = 256, noise: float = 0.15) -> Language:
    """The language of these arguments, written once in a process."""
    return Language(seed, vocab_size, noise)


def _zipf(count: int) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = 1.0 / np.arange(1, count + 1)
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
