"""Several sinks as one."""

from collections.abc import Mapping, Sequence

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.protocol import Sink


class FanOut:
    """Hands everything to each of its sinks, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        for sink in self._sinks:
            sink.step(signals, log=log)

    def event(self, event: Event) -> None:
        for sink in self._sinks:
            sink.event(event)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.evaluation(step, results)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.scalars(step, values)

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
