"""A sink that keeps what it is told."""

from collections.abc import Mapping

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals


class RecordingSink:
    """Signals and events, in order."""

    def __init__(self) -> None:
        self.signals: list[StepSignals] = []
        self.events: list[Event] = []

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self.signals.append(signals)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
