"""A sink for tests."""

from collections.abc import Mapping

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals


class Recorded:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.steps: list[StepSignals] = []
        self.events: list[Event] = []

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self.steps.append(signals)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None: ...
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
