"""What is normal for a run, learnt from the run itself: robust statistics in log space."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Any

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


def median(values: Sequence[float]) -> float:
    """Median of a non-empty sequence (statistics.median costs three times as much)."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class Baseline:
    """Median of the last 8 and spread of the last 64 accepted values. The caller keeps outliers out.

    The short median follows warm-up and decay, so nothing has to be blacked out; the spread is that of the
    residuals from it (log space), so that a trend is not taken for noise. Both are computed when asked for: most
    rules ask only once something looks unusual.
    """

    SHORT = 8
    LONG = 64
    EVERY = 8
    """The spread is taken anew after so many accepted values: it changes slowly, and costs most."""

    def __init__(self, min_sigma: float) -> None:
        self.min_sigma = min_sigma
        self.accepted = 0
        # As many as still matter: the residuals before the last EVERY, and what the first of them is taken from.
        self._new: deque[float] = deque(maxlen=self.LONG + self.EVERY + self.SHORT)
        self._recent: deque[float] = deque(maxlen=self.SHORT)
        self._ordered: list[float] = []
        """The recent ones, the least first."""
        self._residuals: deque[float] = deque(maxlen=self.LONG)
        self._center: float | None = None
        self._sigma = min_sigma
        self._to_measure: tuple[float, ...] = ()
        """Residuals whose spread nobody has asked for yet."""

    @property
    def center(self) -> float | None:
        """Median of the last 8 accepted values; None before the first."""
        if self._new:
            self._take_in()
        return self._center

    @property
    def sigma(self) -> float:
        """Robust standard deviation of the residuals, at least min_sigma."""
        if self._new:
            self._take_in()
        if self._to_measure:
            ordered = sorted(self._to_measure)
            middle = median(ordered)
            spread = median([abs(residual - middle) for residual in ordered])  # two runs: quickly sorted
            self._sigma = max(MAD_TO_SIGMA * spread, self.min_sigma)
            self._to_measure = ()
        return self._sigma

    def accept(self, value: float) -> None:
        """Takes a finite value into the windows."""
        self._new.append(value)
        self.accepted += 1

    def _take_in(self) -> None:
        recent, ordered, residuals, center = self._recent, self._ordered, self._residuals, self._center
        for number, value in enumerate(self._new, start=self.accepted - len(self._new)):
            if center is not None:
                residuals.append(value - center)
            if number % self.EVERY == 0:
                self._to_measure = tuple(residuals)
            if len(recent) == self.SHORT:
                del ordered[bisect_left(ordered, recent[0])]
            recent.append(value)
            insort(ordered, value)
            middle = len(ordered) // 2
            center = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        self._center = center
        self._new.clear()

    def restart(self, values: Sequence[float]) -> None:
        """A new regime: centered on these values; the spread is kept."""
        if self._new:
            self._take_in()
        self._recent = deque(values, maxlen=self.SHORT)
        self._ordered = sorted(self._recent)
        self._center = median(self._recent) if self._recent else None

    def state_dict(self) -> dict[str, Any]:
        center, sigma = self.center, self.sigma
        return {
            "accepted": self.accepted,
            "recent": list(self._recent),
            "residuals": list(self._residuals),
            "center": center,
            "sigma": sigma,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accepted = state["accepted"]
        self._new.clear()
        self._recent = deque(state["recent"], maxlen=self.SHORT)
        self._ordered = sorted(self._recent)
        self._residuals = deque(state["residuals"], maxlen=self.LONG)
        self._center = state["center"]
        self._sigma, self._to_measure = state["sigma"], ()
