"""loader: the same windows whatever the ranks, the accumulation and the restarts."""

import random
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from minigpt.data.loader import BatchLoader, validation_batches
from minigpt.data.windows import IGNORE_INDEX, Windows
from tests.data.conftest import MakeTokens


@pytest.fixture
def windows(make_tokens: MakeTokens) -> Windows:
    """Ten windows of four, the last one with two targets."""
    return Windows(make_tokens(range(39)), 4)


def global_random_states() -> list[str]:
    numpy_state = np.random.get_state(legacy=False)
    return [str(random.getstate()), str(numpy_state), str(torch.get_rng_state().tolist())]


def seen(loader: BatchLoader, steps: int) -> list[int]:
    batches = [batch for _ in range(steps) for batch in loader.next_step().micro_batches]
    return [index for batch in batches for index in batch.window_indices]


def test_loader_reads_every_window_once_an_epoch_when_steps_straddle_epochs(windows: Windows) -> None:
    with BatchLoader(windows, seed=0, micro_batch_size=3, grad_accum_steps=2) as loader:
        indices = seen(loader, 5)
    assert [sorted(indices[epoch : epoch + 10]) for epoch in (0, 10, 20)] == [list(range(10))] * 3
    assert indices[:10] != indices[10:20]


@pytest.mark.parametrize(
    ("micro_batch_size", "grad_accum_steps", "world_size"), [(4, 1, 1), (1, 2, 2), (2, 1, 2)]
)
def test_loader_puts_the_same_windows_in_a_step_for_any_layout(
    windows: Windows, micro_batch_size: int, grad_accum_steps: int, world_size: int
) -> None:
    reference = BatchLoader(windows, seed=5, micro_batch_size=2, grad_accum_steps=2).step_at(8)
    wanted = [index for batch in reference.micro_batches for index in batch.window_indices]
    found, targets = [], 0
    for rank in range(world_size):
        step = BatchLoader(
            windows,
            seed=5,
            micro_batch_size=micro_batch_size,
            grad_accum_steps=grad_accum_steps,
            rank=rank,
            world_size=world_size,
        ).step_at(8)
        found += [index for batch in step.micro_batches for index in batch.window_indices]
        targets += step.targets
        assert step.next_position == 12
    assert sorted(found) == sorted(wanted)
    assert targets == reference.targets


def test_loader_counts_the_targets_that_count(windows: Windows) -> None:
    loader = BatchLoader(windows, seed=0, micro_batch_size=5, grad_accum_steps=2)
    step = loader.step_at(0)
    assert step.targets == 38
    assert step.targets == sum(int((batch.targets_BT != IGNORE_INDEX).sum()) for batch in step.micro_batches)


def test_loader_goes_on_where_it_was_when_restarted(windows: Windows) -> None:
    with BatchLoader(windows, seed=1, micro_batch_size=2, grad_accum_steps=2) as straight:
        wanted = seen(straight, 6)
    with BatchLoader(windows, seed=1, micro_batch_size=2, grad_accum_steps=2) as first:
        begun = seen(first, 2)
        state = first.state_dict()
    assert state == {"position": 8}
    with BatchLoader(windows, seed=1, micro_batch_size=2, grad_accum_steps=2) as second:
        second.load_state_dict(state)
        assert begun + seen(second, 4) == wanted


def test_loader_leaves_every_global_random_state_alone(windows: Windows) -> None:
    before = global_random_states()
    with BatchLoader(windows, seed=1, micro_batch_size=2, grad_accum_steps=2) as loader:
        seen(loader, 3)
    assert global_random_states() == before


def test_loader_raises_what_went_wrong_in_the_background(make_tokens: MakeTokens) -> None:
    class Broken(Windows):
        def stacked(
            self, indices: Sequence[int], rows: int | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            raise OSError("disk gone")

    with BatchLoader(
        Broken(make_tokens(range(9)), 4), seed=0, micro_batch_size=1, grad_accum_steps=1
    ) as loader:
        for _ in range(2):
            with pytest.raises(OSError, match="disk gone"):
                loader.next_step()


def test_loader_ends_its_thread_when_closed(windows: Windows) -> None:
    before = threading.active_count()
    loader = BatchLoader(windows, seed=0, micro_batch_size=1, grad_accum_steps=1)
    loader.next_step()
    assert threading.active_count() == before + 1
    loader.close()
    loader.close()
    assert threading.active_count() == before


def test_validation_reads_every_window_in_order_and_pads_the_rest(windows: Windows) -> None:
    batches = list(validation_batches(windows, 4, None))
    assert [batch.window_indices for batch in batches] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert {tuple(batch.inputs_BT.shape) for batch in batches} == {(4, 4)}
    targets = torch.cat([batch.targets_BT.flatten() for batch in batches])
    assert targets[targets != IGNORE_INDEX].tolist() == list(range(1, 39))


def test_validation_gives_every_rank_as_many_batches(windows: Windows) -> None:
    ranks = [list(validation_batches(windows, 3, None, rank, 2)) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [2, 2]
    indices = [index for batches in ranks for batch in batches for index in batch.window_indices]
    assert sorted(indices) == list(range(10))


@pytest.mark.parametrize(("max_tokens", "count"), [(1, 1), (8, 2), (11, 2), (10_000, 10)])
def test_validation_stops_after_max_tokens(windows: Windows, max_tokens: int, count: int) -> None:
    assert sum(len(batch.window_indices) for batch in validation_batches(windows, 4, max_tokens)) == count
