"""What a corpus tells of its tokens without any order."""

import numpy as np

from minigpt.data.shards import Tokens

MOST_TOKENS = 1 << 22
"""Enough for the frequencies of any vocabulary; more would only take time."""


def unigram_loss(tokens: Tokens) -> float:
    """Nats a token of the best guess that looks at no other token: the entropy of the first tokens' frequencies."""
    counts = np.bincount(tokens[: min(len(tokens), MOST_TOKENS)])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
