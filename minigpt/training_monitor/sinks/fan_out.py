"""Several sinks as one."""

from collections.abc import Mapping, Sequence

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.guarded import Guarded
from minigpt.training_monitor.sinks.protocol import Sink


class FanOut:
    """Hands everything to each of its sinks, in order; and to all of them, what a guarded one has to tell."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self._guarded = [sink for sink in self._sinks if isinstance(sink, Guarded)]

    def step(self, signals: StepSignals, *, log: bool) -> None:
        for sink in self._sinks:
            sink.step(signals, log=log)
        self._tell()

    def event(self, event: Event) -> None:
        for sink in self._sinks:
            sink.event(event)
        self._tell()

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.evaluation(step, results)
        self._tell()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.scalars(step, values)
        self._tell()

    def flush(self) -> None:
        """Flushes all of them, whichever fails.

        Raises:
            OSError: of the first one that did.
        """
        errors = []
        for sink in self._sinks:
            try:
                sink.flush()
            except OSError as error:
                errors.append(error)
        self._tell()
        if errors:
            raise errors[0]

    def close(self) -> None:
        self._tell()
        for sink in self._sinks:
            sink.close()

    def _tell(self) -> None:
        # What one of them is told may be what makes the next one fail: until there is no more news.
        while notes := [note for guarded in self._guarded for note in guarded.take_notes()]:
            for note in notes:
                for sink in self._sinks:
                    sink.event(note)
