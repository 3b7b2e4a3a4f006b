"""Arms compared seed by seed: what two runs share (data, first weights) does not blur their difference."""

import math
from collections.abc import Sequence

from minigpt.lab.experiments.experiment import Held
from minigpt.lab.experiments.intervals import Mean, mean_of
from minigpt.lab.experiments.outcome import Outcome


def loss_difference(one: Sequence[Outcome], other: Sequence[Outcome]) -> Mean:
    """Mean over the seeds that both have of the final loss of `one` less that of `other`."""
    finals = {outcome.seed: outcome.final_loss for outcome in other}
    return mean_of([outcome.final_loss - finals[outcome.seed] for outcome in one if outcome.seed in finals])


def signed(mean: Mean, form: str = ".3f") -> str:
    """The mean with its sign, and its interval without."""
    around = "" if mean.half_width is None else f" ± {mean.half_width:{form}}"
    return f"{mean.value:+{form}}{around}" if math.isfinite(mean.value) else "not finite"


def within(mean: Mean, low: float, high: float) -> Held:
    """Whether the interval lies inside (held), outside (did not hold), or neither: then more runs would have to tell.

    NaN is outside; one run has no interval, and so is never enough.
    """
    if math.isnan(mean.value):
        return "did not hold" if mean.count else "cannot be told"
    if mean.half_width is None:
        return "cannot be told"
    if low <= mean.low and mean.high <= high:
        return "held"
    return "did not hold" if mean.high < low or mean.low > high else "cannot be told"
