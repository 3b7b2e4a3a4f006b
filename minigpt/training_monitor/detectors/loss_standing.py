"""Where the loss stands: against its own best, and against an earlier level."""

from collections import deque
from math import isfinite
from typing import Any

from minigpt.training_monitor.baseline import MAD_TO_SIGMA, median

RECENT = 16
"""Losses whose median is the present level."""
CLEARLY = 0.1
"""A level so far above the best (a fraction of it) stands clearly above it ..."""
TINY = 0.05
"""... at least by this fraction of the first level: of a loss that has all but gone any factor is noise ..."""
NOISE = 2.0
"""... and by so many robust standard deviations of a single loss: the best of many medians was partly luck."""
SOLVED = 0.2
"""Below this fraction of the first level the task is learnt."""


class LossStanding:
    """Medians of the last losses; may be negative."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._best: float | None = None
        self._first: float | None = None

    def note(self, loss: float) -> None:
        """Takes a step's loss."""
        if not isfinite(loss):
            return
        self._recent.append(loss)
        if self._first is None and len(self._recent) == RECENT:
            self._first = median(self._recent)
        if len(self._recent) == RECENT and (self._best is None or loss < self._best):
            level = median(self._recent)  # a median below the best needs losses below it: seldom computed
            self._best = level if self._best is None else min(level, self._best)

    def level(self) -> float | None:
        """The present level; None before the first loss."""
        return median(self._recent) if self._recent else None

    def above_best(self) -> bool:
        """Whether the level stands clearly above the best one."""
        if self._best is None:
            return False
        level = median(self._recent)
        sigma = MAD_TO_SIGMA * median([abs(loss - level) for loss in self._recent])
        tiny = TINY * abs(self._first) if self._first is not None else 0.0
        return level - self._best > max(CLEARLY * abs(self._best), NOISE * sigma, tiny)

    def solved(self) -> bool:
        """Whether little is left of the loss that the run began with."""
        level = self.level()
        return level is not None and self._first is not None and level < SOLVED * self._first

    def forget_best(self) -> None:
        """After a declared change: what was reached before says nothing."""
        self._best = None

    def state_dict(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "best": self._best, "first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._recent = deque(state["recent"], maxlen=RECENT)
        self._best, self._first = state["best"], state["first"]
