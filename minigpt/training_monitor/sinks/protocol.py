"""What a sink is."""

from collections.abc import Mapping
from typing import Protocol

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals


class Sink(Protocol):
    """Takes what happened in a run. File sinks open with keep_through: what lies after it was discarded."""

    def step(self, signals: StepSignals, *, log: bool) -> None:
        """One finished step; `log`: this step is due on the console and in the log."""
        ...

    def event(self, event: Event) -> None:
        """An anomaly, action, save or resume."""
        ...

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Validation results after `step`, by name: loss, perplexity, bits_per_byte."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other numbers by tag, e.g. grad_check/ok_params."""
        ...

    def flush(self) -> None:
        """Everything so far is on disk when this returns."""
        ...

    def close(self) -> None: ...
