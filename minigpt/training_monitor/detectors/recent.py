"""The last steps of a run as points of log norm and log loss, with steps (not calls) as the clock."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import exp
from typing import Any, NamedTuple

from minigpt.training_monitor.baseline import median

MIN_POINTS = 5
"""A sparse record (every tenth step) has at least so many points for `thirds`, however old."""
LOSS_POINTS = 12
"""And so many for the loss: its noise hides how much it improved between single values."""
STEADY_SHARE = 0.1
"""Part of a decline that each half of it has: what a spike leaves behind, all at once, is none."""


class Point(NamedTuple):
    """One step: the natural logarithms of its gradient norm and loss."""

    step: int
    norm: float
    loss: float

    def fall_from(self, level: "Point") -> float:
        """How far the log norm lies under `level`, beyond what a falling loss explains."""
        return (level.norm - self.norm) - max(0.0, level.loss - self.loss)

    @staticmethod
    def middle_of(points: Sequence["Point"]) -> "Point":
        """Medians of a non-empty sequence, at its last step."""
        norm = median([point.norm for point in points])
        return Point(points[-1].step, norm, median([point.loss for point in points]))


def listed(point: Point | None) -> list[float] | None:
    """A point for a state dict; `unlisted` takes it back."""
    return None if point is None else list(point)


def unlisted(values: list[Any] | None) -> Point | None:
    """The point that `listed` wrote down."""
    return None if values is None else Point(*values)


class Recent:
    """The points of the last `steps` steps."""

    def __init__(self, steps: int, points: Iterable[Point] = ()) -> None:
        self._steps = steps
        self.points: deque[Point] = deque()
        self._older = 0
        """Points at the front that are older than `steps`, kept for the loss alone."""
        self._thirds: tuple[Point, Point, Point] | None = None
        self._thirds_at = -1
        for point in points:
            self.add(point)

    def add(self, point: Point) -> None:
        points = self.points
        points.append(point)
        while len(points) - self._older > MIN_POINTS and points[self._older].step < point.step - self._steps:
            self._older += 1
        while self._older and len(points) > LOSS_POINTS:
            points.popleft()
            self._older -= 1

    @property
    def newest(self) -> Point:
        return self.points[-1]

    @property
    def oldest(self) -> Point:
        return self.points[self._older]

    @property
    def span(self) -> int:
        """Steps from the oldest point to the newest."""
        return self.newest.step - self.oldest.step

    def thirds(self) -> tuple[Point, Point, Point] | None:
        """Medians of the first, middle and last third; None with fewer than three points."""
        if self._thirds_at != self.newest.step:
            self._thirds = _thirds(list(self.points)[self._older :])
            self._thirds_at = self.newest.step
        return self._thirds

    def declines(self, fall: float, least_span: int) -> bool:
        """Whether the log norm falls by more than `fall`, steadily and beyond what a falling loss explains."""
        if self.points[self._older].norm - self.points[-1].norm < 1.0:
            return False  # cheap, and nearly always so
        thirds = self.thirds()
        if thirds is None or self.span < least_span:
            return False
        first, middle, last = thirds
        share = STEADY_SHARE * (first.norm - last.norm)
        falls = first.norm - middle.norm > share and middle.norm - last.norm > share
        return falls and last.fall_from(first) > fall

    def loss_improvement(self) -> float | None:
        """Fraction by which the loss fell from the first to the last third; None below three points."""
        thirds = _thirds(list(self.points)) if self._older else self.thirds()
        return None if thirds is None else 1.0 - exp(thirds[2].loss - thirds[0].loss)

    def typical_loss(self) -> float:
        """Median log loss of the last third, or the newest."""
        count = len(self.points) // 3
        if count == 0:
            return self.newest.loss
        points = self.points
        return median([points[-index].loss for index in range(1, count + 1)])


def _thirds(points: list[Point]) -> tuple[Point, Point, Point] | None:
    if len(points) < 3:
        return None
    third = len(points) // 3
    first, middle, last = points[:third], points[third : len(points) - third], points[-third:]
    return Point.middle_of(first), Point.middle_of(middle), Point.middle_of(last)
