"""Ranks learn together, at once or one step late, that one of them wants to stop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from minigpt.training_monitor.integrations.agreement import Agreement, mean_over_ranks

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """This process is the only rank."""
    dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/store")
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("late", "expected"), [(None, [False, True, False]), (True, [False, False, True])])
def test_flag_of_a_rank_reaches_all_at_the_same_call(late: bool | None, expected: list[bool]) -> None:
    agreement = Agreement(late)
    assert [agreement.any(flag, CPU) for flag in (False, True, False)] == expected


@pytest.mark.usefixtures("group")
def test_mean_over_ranks_leaves_the_value_as_it_was() -> None:
    value = torch.tensor(3.0)
    mean_over_ranks(value).add_(1.0)
    assert value == 3.0
