"""order: a permutation an epoch, computed in place."""

import numpy as np
import pytest

from minigpt.data.order import permuted


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4097])
def test_permuted_is_a_permutation_for_any_size(size: int) -> None:
    places = permuted(np.arange(size), size, seed=1, epoch=2)
    assert sorted(places.tolist()) == list(range(size))


def test_permuted_takes_one_index_or_many_alike() -> None:
    many = permuted(np.arange(100), 100, seed=3, epoch=0)
    assert [permuted(index, 100, seed=3, epoch=0) for index in range(100)] == many.tolist()


def test_permuted_is_the_same_for_ever() -> None:
    assert permuted(np.arange(8), 8, seed=0, epoch=0).tolist() == [0, 5, 7, 1, 2, 3, 6, 4]


def test_permuted_differs_by_seed_and_by_epoch() -> None:
    orders = {
        tuple(permuted(np.arange(50), 50, seed, epoch).tolist()) for seed in (-1, 0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 6


def test_permuted_looks_shuffled() -> None:
    places = permuted(np.arange(100_000), 100_000, seed=0, epoch=0)
    correlation = np.corrcoef(np.arange(100_000), places)[0, 1]
    neighbours = np.corrcoef(places[:-1], places[1:])[0, 1]
    # Three standard deviations of a random permutation's.
    assert abs(correlation) < 3 / np.sqrt(100_000)
    assert abs(neighbours) < 3 / np.sqrt(100_000)


def test_permuted_needs_no_memory_for_a_huge_size() -> None:
    assert 0 <= permuted(10**14, 10**15 + 1, seed=0, epoch=0) <= 10**15
