"""The last steps of one quantity, with steps (not calls) as the clock."""

from collections.abc import Callable, Iterable, Sequence

from minigpt.training_monitor.baseline import median

MIN_POINTS = 6
"""A sparse record (every tenth step) keeps at least so many points, however old."""


class StepWindow:
    """The values of the last `steps` steps, oldest first."""

    def __init__(self, steps: int, points: Iterable[Sequence[float]] = ()) -> None:
        self._length = steps
        self.steps: list[int] = []
        self.values: list[float] = []
        """One for each of `steps`."""
        for step, value in points:
            self.steps.append(int(step))
            self.values.append(value)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def points(self) -> list[tuple[int, float]]:
        """Pairs of step and value."""
        return list(zip(self.steps, self.values, strict=True))

    def add(self, step: int, value: float) -> None:
        self.steps.append(step)
        self.values.append(value)
        while len(self.steps) > MIN_POINTS and self.steps[0] <= step - self._length:
            del self.steps[0], self.values[0]

    @property
    def span(self) -> int:
        """Steps from the oldest point to the newest."""
        return self.steps[-1] - self.steps[0] if self.steps else 0

    @property
    def is_full(self) -> bool:
        """Whether it reaches back over (nearly) all of its steps."""
        return self.span >= 0.9 * (self._length - 1)

    def last_third(self) -> list[float]:
        """The values of the last third of the points; none with fewer than three."""
        third = len(self.values) // 3
        return self.values[-third:] if third else []

    def thirds(
        self, middle: Callable[[Sequence[float]], float] = median
    ) -> tuple[float, float, float] | None:
        """Medians (or what `middle` takes) of the first, middle and last third of the points; None with fewer than
        three."""
        values, third = self.values, len(self.values) // 3
        if not third:
            return None
        return middle(values[:third]), middle(values[third:-third]), middle(values[-third:])

    def clear(self) -> None:
        self.steps.clear()
        self.values.clear()

    def state(self) -> list[list[float]]:
        """Plain values; give them back as `points`."""
        return [[step, value] for step, value in zip(self.steps, self.values, strict=True)]
