"""Whether the loss stayed where it was while something else moved."""

from collections import deque
from math import isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import Baseline, median

FLAT = 0.08
"""Smallest change of the log loss that is not called flat."""
FALLEN = 2.0
"""Robust standard deviations of a single loss by which the median of the last ones must be lower to be below."""
TELLING = 0.5
"""Beyond this share of the gradients' factor a change of the loss could not be told from its noise."""


class LossLevel:
    """The loss of the last steps against its own normal from before."""

    def __init__(self) -> None:
        self._baseline = Baseline(min_sigma=0.02)
        self._now: deque[float] = deque(maxlen=6)

    def note(self, loss: float, *, normal: bool) -> None:
        """Takes a step's loss; `normal` steps teach what is usual."""
        if not (isfinite(loss) and loss > 0):
            return
        self._now.append(log(loss))
        if normal:
            self._baseline.accept(self._now[-1])

    def change(self) -> float | None:
        """Log of how many times its normal the loss of the last steps is; None while unknown."""
        if self._baseline.center is None or len(self._now) < 3:
            return None
        return median(self._now) - self._baseline.center

    def has_fallen(self) -> bool:
        """Whether the loss stands clearly below its normal, beyond its noise."""
        change = self.change()
        return change is not None and change < -max(FLAT, FALLEN * self._baseline.sigma)

    def has_risen(self, ratio: float) -> bool:
        """Whether the loss stands at more than `ratio` times its normal."""
        change = self.change()
        return change is not None and change > log(ratio)

    def fits(self, factor: float) -> bool:
        """Whether the loss stood still, or moved by the very factor (log) that the gradients moved by."""
        change = self.change()
        if change is None:
            return False
        flat = max(FLAT, 1.5 * self._baseline.sigma)
        if flat > TELLING * abs(factor):
            return False
        return abs(change) < flat or abs(change - factor) < flat

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self._baseline.state_dict(), "now": list(self._now)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._baseline.load_state_dict(state["baseline"])
        self._now = deque(state["now"], maxlen=6)
