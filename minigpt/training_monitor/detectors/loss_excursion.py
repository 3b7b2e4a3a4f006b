"""How far the loss stands above its own best, since when, and from how high it came back before."""

from collections import deque
from collections.abc import Sequence
from math import exp, log
from typing import Any, NamedTuple

from minigpt.training_monitor.baseline import median

AGAIN = 1.3
"""A rise must be this many times (log space) the highest one that the run came back from."""
HALF_WAY = 0.5
"""Of a loss that leapt, at least this share of its rise (log space) came at once; and one that has come down by this
share of its highest rise is on its way back."""

Thirds = tuple[float, float, float]


class Level(NamedTuple):
    """Log of a typical loss, by median and by mean.

    The median alone is deceived where batches of two kinds take turns and where the log of a noisy loss reaches far
    down; the mean alone by a single outlier. What has truly risen has risen by both.
    """

    median: float
    mean: float

    def above(self, other: "Level") -> float:
        """By how much, at least."""
        return min(self.median - other.median, self.mean - other.mean)

    def lower_of(self, other: "Level | None") -> "Level":
        """The lower of each."""
        if other is None:
            return self
        return Level(min(self.median, other.median), min(self.mean, other.mean))

    def higher_of(self, other: "Level") -> "Level":
        """The higher of each."""
        return Level(max(self.median, other.median), max(self.mean, other.mean))


def log_mean(values: Sequence[float]) -> float:
    """Log of the mean of the losses whose logs are given."""
    highest = max(values)
    return highest + log(sum(exp(value - highest) for value in values) / len(values))


def level_of(values: Sequence[float]) -> Level:
    """Of a non-empty sequence of log losses."""
    return Level(median(values), log_mean(values))


class LossExcursion:
    """The best level so far, and the present excursion above it."""

    def __init__(self, window_steps: int) -> None:
        self._window_steps = window_steps
        self.best: Level | None = None
        self.since: int | None = None
        """The first step of the present excursion."""
        self.rise = 0.0
        """Log of how far the last level lay above the best."""
        self._highest = self._healed = self._at_once = 0.0
        self._standing_since: int | None = None
        self._levels: deque[tuple[int, Level]] = deque()  # of the last third of a window
        self._rises = (0.0, 0.0)  # at the beginning of the last window and of this one
        self._rises_at = 0

    def improve(self, step: int, level: Level) -> None:
        """Takes a level while no excursion is under way."""
        self.rise = self._rise_of(step, level)
        self._remember(step)

    def note(self, step: int, level: Level, margin: float) -> None:
        """Takes a level; one more than `margin` (log) above the best is an excursion."""
        self.rise = self._rise_of(step, level)
        if self.rise <= margin:
            self.since = self._standing_since = None
            self._healed = max(self._healed, self._highest)
            self._highest = self._at_once = 0.0
            self._remember(step)
            return
        self.since = self.since or step
        self._highest = max(self._highest, self.rise)
        if step - self.since < self._window_steps:
            self._at_once = self._highest - self._rises[0]
        if self._standing_since is None or self.rise < (1 - HALF_WAY) * self._highest:
            self._standing_since = step

    def _rise_of(self, step: int, level: Level) -> float:
        """Over the best, after this level has had its part in it: only where it lasts, for a while of easy data is
        no measure of what follows."""
        levels = self._levels
        levels.append((step, level))
        while len(levels) > 1 and levels[1][0] <= step - self._window_steps // 3:
            levels.popleft()
        self.best = level.higher_of(levels[0][1]).lower_of(self.best)
        return level.above(self.best)

    def _remember(self, step: int) -> None:
        if step - self._rises_at >= self._window_steps:
            self._rises, self._rises_at = (self._rises[1], self.rise), step

    @property
    def leapt(self) -> bool:
        """Whether most of the rise came at once. A loss creeps up when its objective asks for more and more (the
        weight of a second term, a share of harder data) or moves (a return, an adversary)."""
        return self.since is not None and self._at_once >= HALF_WAY * self.rise

    def stands_for(self, step: int) -> int:
        """Steps for which the loss has not come half-way down again."""
        return 0 if self._standing_since is None else step - self._standing_since

    @property
    def is_new(self) -> bool:
        """Whether the run has not come back from about as high by itself before: data in an order, or noise."""
        return self.rise > AGAIN * self._healed

    def forget(self) -> None:
        """What was reached before says nothing any more."""
        self.best = self.since = self._standing_since = None
        self._rises = (0.0, 0.0)
        self._levels.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": None if self.best is None else list(self.best),
            "since": self.since,
            "rise": self.rise,
            "highest": self._highest,
            "healed": self._healed,
            "at_once": self._at_once,
            "levels": [[step, *level] for step, level in self._levels],
            "rises": list(self._rises),
            "rises_at": self._rises_at,
            "standing_since": self._standing_since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = None if state["best"] is None else Level(*state["best"])
        self.since, self.rise = state["since"], state["rise"]
        self._highest, self._healed = state["highest"], state["healed"]
        self._at_once = state["at_once"]
        self._levels = deque((int(step), Level(middle, mean)) for step, middle, mean in state["levels"])
        self._rises, self._rises_at = (state["rises"][0], state["rises"][1]), state["rises_at"]
        self._standing_since = state["standing_since"]
