"""What is normal for a run: the same numbers however seldom anybody asks for them."""

import random
from statistics import median

import pytest

from minigpt.training_monitor.baseline import MAD_TO_SIGMA, Baseline


@pytest.mark.parametrize("asked_every", [2, 8, 41, 700])
def test_baseline_is_the_same_when_it_is_asked_seldom(asked_every: int) -> None:
    chance = random.Random(3)
    always, seldom = Baseline(0.01), Baseline(0.01)
    for step in range(1, 701):
        value = chance.gauss(step / 100, 0.3)
        always.accept(value)
        seldom.accept(value)
        known = (always.center, always.sigma)
        if step % asked_every == 0:
            assert (seldom.center, seldom.sigma) == known
            assert seldom.state_dict() == always.state_dict()
        if step == 333:
            always.restart([value, value + 1, value + 2])
            seldom.restart([value, value + 1, value + 2])


def test_baseline_gives_the_median_of_eight_and_the_spread_of_what_lies_around_it() -> None:
    values = [float(value) for value in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3)]
    baseline = Baseline(1e-6)
    for value in values:
        baseline.accept(value)
    assert baseline.center == median(values[-8:])
    # Taken anew with each eighth value after the first: the last time with the ninth.
    residuals = [values[i] - median(values[max(i - 8, 0) : i]) for i in range(1, 9)]
    middle = median(residuals)
    assert baseline.sigma == MAD_TO_SIGMA * median(abs(residual - middle) for residual in residuals)
