"""Series of steps as a user's log would show them."""

import math
import random
from collections.abc import Callable, Iterable, Iterator

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.signals import StepSignals

Triple = tuple[int, float, float]
"""step, loss, gradient norm"""

DIP: list[Triple] = [
    (10, 8.2345, 1e-4),
    (11, 8.16, 8e-6),
    (12, 8.09, 2e-4),
    (13, 8.02, 3e-4),
    (14, 7.95, 5e-7),
    (15, 7.8901, 2e-4),
]
"""The users' healthy series: one dip under 1e-6, over at once, the loss falling."""


def decline(first: int) -> list[Triple]:
    """The users' sick series, every tenth step from `first`: the norm keeps falling, the loss stands."""
    losses = (8.2345, 8.2340, 8.2342, 8.2341, 8.2343)
    return [(first + 10 * i, loss, 10.0 ** -(i + 2)) for i, loss in enumerate(losses)]


def healthy(
    steps: int,
    seed: int,
    *,
    loss_at: Callable[[int], float] = lambda step: 3 + 7 * math.exp(-step / 400),
    norm_at: Callable[[int], float] = lambda step: 0.3 + 9.7 * math.exp(-step / 60),
    norm_noise: float = 0.2,
    loss_noise: float = 0.02,
    scale: float = 1.0,
    first: int = 1,
) -> Iterator[Triple]:
    """A learning run with log-normal noise; `scale` multiplies loss and gradients alike."""
    chance = random.Random(seed)
    for step in range(first, first + steps):
        loss = loss_at(step) * chance.lognormvariate(0, loss_noise)
        yield step, loss * scale, norm_at(step) * chance.lognormvariate(0, norm_noise) * scale


def signals_of(series: Iterable[Triple]) -> list[StepSignals]:
    return [StepSignals(step, loss, norm, group_norms={"embedding": norm}) for step, loss, norm in series]


def findings_of(monitor: TrainingMonitor, series: Iterable[Triple]) -> list[Finding]:
    return [finding for signals in signals_of(series) for finding in monitor.observe(signals).findings]
