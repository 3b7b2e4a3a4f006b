import math
from typing import cast

import numpy as np
import pytest

from minigpt.data.frequencies import MOST_TOKENS, unigram_loss
from minigpt.data.shards import Tokens


def loss_of(*tokens: int) -> float:
    return unigram_loss(cast(Tokens, np.array(tokens, np.uint16)))


def test_unigram_loss_is_the_entropy_of_the_frequencies() -> None:
    assert loss_of(0, 1, 2, 3) == pytest.approx(math.log(4))
    assert loss_of(5, 5, 5, 5) == 0
    # Half, a quarter, a quarter: 1.5 bits.
    assert loss_of(1, 1, 2, 3) == pytest.approx(1.5 * math.log(2))


def test_unigram_loss_reads_no_more_than_it_needs() -> None:
    tokens = np.zeros(MOST_TOKENS + 10, np.uint16)
    tokens[MOST_TOKENS:] = 1

    assert unigram_loss(cast(Tokens, tokens)) == 0
