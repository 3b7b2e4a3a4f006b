"""Fixed-length windows over a long row of tokens, every token a target exactly once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from minigpt.data.shards import Tokens
from minigpt.errors import DataError

IGNORE_INDEX = -100


class Windows:
    """Windows of `context_length` inputs and as many targets, each one token further on."""

    def __init__(self, tokens: Tokens, context_length: int) -> None:
        if len(tokens) < context_length + 1:
            longest = len(tokens) - 1
            more = " or a larger data.validation_fraction" if tokens.part == "validation" else ""
            raise DataError(
                f"the {tokens.part} part of the corpus has {len(tokens):,} tokens, one window needs "
                f"model.context_length + 1 = {context_length + 1:,}; "
                f"set model.context_length to {longest} or less, or give more text{more}"
            )
        self.tokens = tokens
        self.context_length = context_length

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.context_length)

    def start(self, index: int) -> int:
        """The token at which the window begins; the last one is moved back to end with the last token."""
        return min(index * self.context_length, len(self.tokens) - 1 - self.context_length)

    def targets_in(self, index: int) -> int:
        """How many targets of the window count: all, except in the last one those that the one before had."""
        return min(self.context_length, len(self.tokens) - 1 - index * self.context_length)

    def get(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 [context_length]; targets that do not count are IGNORE_INDEX."""
        inputs_BT, targets_BT = self.stacked([index])
        return inputs_BT[0], targets_BT[0]

    def stacked(self, indices: Sequence[int], rows: int | None = None) -> tuple[Tensor, Tensor]:
        """Several windows as rows [B, context_length]; rows without a window have only IGNORE_INDEX targets."""
        length = self.context_length
        spans = np.zeros((rows or len(indices), length + 1), np.int64)
        for row, index in enumerate(indices):
            assert 0 <= index < len(self), "no such window"
            start = self.start(index)
            spans[row] = self.tokens[start : start + length + 1]
        targets = spans[:, 1:].copy()
        targets[len(indices) :] = IGNORE_INDEX
        for row, index in enumerate(indices):
            if (uncounted := length - self.targets_in(index)) > 0:
                targets[row, :uncounted] = IGNORE_INDEX
        return torch.from_numpy(spans[:, :-1].copy()), torch.from_numpy(targets)
