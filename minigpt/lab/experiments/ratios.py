"""How many times larger one arm's number is than another's, seed by seed."""

import math
from collections.abc import Sequence

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.intervals import Ratio, mean_of
from minigpt.lab.experiments.outcome import Outcome

_LARGEST_LOG = 700.0


def ratio_of(pairs: Sequence[tuple[float, float]], *, at_least: bool = False) -> Ratio:
    """First : second; pairs with a number that is not finite or not positive are left out."""
    logs = [
        math.log(first / second)
        for first, second in pairs
        if math.isfinite(first) and math.isfinite(second) and first > 0 and second > 0
    ]
    mean = mean_of(logs)
    return Ratio(_exp(mean.value), _exp(mean.low), _exp(mean.high), mean.count, at_least)


def _exp(log: float) -> float:
    # Two seeds that differ much have an interval as wide as floats go.
    return math.exp(log) if not log > _LARGEST_LOG else math.inf


def pairs_by_seed(first: Sequence[Outcome], second: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The outcomes of two arms that have a seed in common."""
    others = {one.seed: one for one in second}
    return [(one, others[one.seed]) for one in first if one.seed in others]


def paired(results: Results, first: str, second: str) -> list[tuple[Outcome, Outcome]]:
    """`pairs_by_seed` of two arms by their names; empty where one was not trained."""
    return pairs_by_seed(results.get(first, ()), results.get(second, ()))
