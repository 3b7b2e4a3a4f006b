"""What a range test suggests, by a rule that is stated."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.lab.lr_find.sweep import Sweep

HALF_WINDOW_DECADES = 1 / 6
"""How far to either side a loss is averaged: over a third of a decade, some ten batches of an ordinary range test."""
RISE_SHARE = 0.05
"""Of the whole fall: how far the loss rises above a low that is said to be the edge; less is the luck of batches."""
LEAST_FALL = 0.1
"""Nats. A loss that falls less has not been seen to fall: the means of ten batches differ by some hundredths."""
BELOW_EDGE = 3.0
"""How far the suggestion lies below the edge."""
RULE = (
    "Rule: the losses are averaged over a third of a decade; the edge is the first low of that curve above which it "
    f"then rises by {100 * RISE_SHARE:.0f} % of its whole fall; the suggestion is a third of the edge. Not the "
    "steepest point: with AdamW and Muon that only tells where the ramp was when the model learnt the easiest. Not the "
    "lowest either: with clipping the loss can fall again at rates far beyond use. A third, because a run stays near "
    "its peak for longer than the ramp does; with warm-up and decay that leaves room, which trainings have to show."
)


@dataclass(frozen=True)
class Suggestion:
    """What the range test says."""

    rate: float | None
    """The peak rate to use, to two digits; None: no rate was seen to teach the model anything."""
    edge: float | None
    """The rate at which the averaged loss was lowest before it rose; where it never did, the highest rate."""
    steepest: float | None
    """The rate below the edge at which it fell fastest over the logarithm of the rate."""
    rose: bool
    """Whether it rose at all."""
    caveat: str | None = None
    """What is to be kept in mind, for people."""


def averaged(sweep: Sweep) -> list[float]:
    """The losses, each the mean of those within HALF_WINDOW_DECADES of its rate; infinite where it is not finite."""
    losses = [math.inf if loss is None else loss for loss in sweep.losses]
    half = half_window(sweep.rates)
    finite = [loss for loss in losses if math.isfinite(loss)]
    means = [statistics.fmean(finite[max(0, at - half) : at + half + 1]) for at in range(len(finite))]
    return [*means, *[math.inf] * (len(losses) - len(finite))]


def half_window(rates: Sequence[float]) -> int:
    """HALF_WINDOW_DECADES in steps of the ramp."""
    decades = math.log10(rates[1] / rates[0]) if len(rates) > 1 else 1.0
    return max(1, round(HALF_WINDOW_DECADES / decades))


def suggest(sweep: Sweep) -> Suggestion:
    """The suggestion of RULE."""
    curve = averaged(sweep)
    finite = [value for value in curve if math.isfinite(value)]
    if not finite or finite[0] - min(finite) < LEAST_FALL:
        first, last = sweep.rates[0], sweep.rates[-1]
        return Suggestion(
            None,
            None,
            None,
            rose=False,
            caveat=f"the loss never fell by {LEAST_FALL:g} nats between {first:.2g} and {last:.2g}: begin lower "
            "(--from), or take more --steps",
        )
    edge, rose = _edge(curve, RISE_SHARE * (finite[0] - min(finite)))
    caveat = (
        None
        if rose
        else f"the loss had not begun to rise at {sweep.rates[-1]:.2g}, so the edge may lie higher: raise --to"
    )
    rate = float(f"{sweep.rates[edge] / BELOW_EDGE:.1e}")
    return Suggestion(rate, sweep.rates[edge], _steepest(sweep.rates, curve[: edge + 1]), rose, caveat)


def _edge(curve: Sequence[float], rise: float) -> tuple[int, bool]:
    """Where the curve was lowest before it first rose by `rise` above that, and whether it did."""
    lowest = 0
    for at, value in enumerate(curve):
        if value < curve[lowest]:
            lowest = at
        elif value > curve[lowest] + rise:
            return lowest, True
    return lowest, False


def _steepest(rates: Sequence[float], curve: Sequence[float]) -> float:
    """The rate between whose neighbours the curve falls most: steps are equal in the logarithm of the rate."""
    falls = [curve[at - 1] - curve[at + 1] for at in range(1, len(curve) - 1)]
    return rates[falls.index(max(falls)) + 1] if falls else rates[0]
