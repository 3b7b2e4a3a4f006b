"""windows: every token a target exactly once."""

import pytest
import torch

from minigpt.data.windows import IGNORE_INDEX, Windows
from minigpt.errors import DataError
from tests.data.conftest import MakeTokens


def test_windows_follow_each_other_when_the_length_fits(make_tokens: MakeTokens) -> None:
    windows = Windows(make_tokens(range(9)), 4)
    assert len(windows) == 2
    inputs, targets = windows.get(1)
    assert inputs.tolist() == [4, 5, 6, 7]
    assert targets.tolist() == [5, 6, 7, 8]
    assert inputs.dtype == targets.dtype == torch.int64


def test_windows_move_the_last_one_back_when_the_length_does_not_fit(make_tokens: MakeTokens) -> None:
    windows = Windows(make_tokens(range(11)), 4)
    inputs, targets = windows.get(2)
    assert inputs.tolist() == [6, 7, 8, 9]
    assert targets.tolist() == [IGNORE_INDEX, IGNORE_INDEX, 9, 10]
    assert [windows.targets_in(index) for index in range(3)] == [4, 4, 2]


@pytest.mark.parametrize("count", range(6, 30))
def test_windows_make_every_token_but_the_first_a_target_once(make_tokens: MakeTokens, count: int) -> None:
    windows = Windows(make_tokens(range(count)), 5)
    targets = torch.cat([windows.get(index)[1] for index in range(len(windows))])
    assert targets[targets != IGNORE_INDEX].tolist() == list(range(1, count))
    for index in range(len(windows)):
        assert int((windows.get(index)[1] != IGNORE_INDEX).sum()) == windows.targets_in(index)


def test_windows_name_a_length_that_works_when_the_corpus_is_too_short(make_tokens: MakeTokens) -> None:
    tokens = make_tokens(range(5))
    with pytest.raises(DataError, match=r"5 tokens.*\+ 1 = 9; set model.context_length to 4"):
        Windows(tokens, 8)
    assert len(Windows(tokens, 4)) == 1
