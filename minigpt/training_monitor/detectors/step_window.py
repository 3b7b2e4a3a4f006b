"""The last steps of one quantity, with steps (not calls) as the clock."""

from collections import deque
from collections.abc import Iterable, Sequence

from minigpt.training_monitor.baseline import median

MIN_POINTS = 6
"""A sparse record (every tenth step) keeps at least so many points, however old."""


class StepWindow:
    """The values of the last `steps` steps, oldest first."""

    def __init__(self, steps: int, points: Iterable[Sequence[float]] = ()) -> None:
        self._steps = steps
        self.points: deque[tuple[int, float]] = deque((int(step), value) for step, value in points)

    def add(self, step: int, value: float) -> None:
        self.points.append((step, value))
        while len(self.points) > MIN_POINTS and self.points[0][0] <= step - self._steps:
            self.points.popleft()

    @property
    def span(self) -> int:
        """Steps from the oldest point to the newest."""
        return self.points[-1][0] - self.points[0][0] if self.points else 0

    @property
    def is_full(self) -> bool:
        """Whether it reaches back over (nearly) all of its steps."""
        return self.span >= 0.9 * (self._steps - 1)

    def thirds(self) -> tuple[float, float, float] | None:
        """Medians of the first, middle and last third of the points; None with fewer than three."""
        if len(self.points) < 3:
            return None
        values = [value for _, value in self.points]
        third = len(values) // 3
        return median(values[:third]), median(values[third:-third]), median(values[-third:])

    def clear(self) -> None:
        self.points.clear()

    def state(self) -> list[list[float]]:
        """Plain values; give them back as `points`."""
        return [list(point) for point in self.points]
