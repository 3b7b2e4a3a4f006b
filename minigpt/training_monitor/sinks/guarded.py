"""A sink that cannot write stops no training: it is said once, tried again, and said when it works again."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.protocol import Sink

REOPEN_SECONDS = 30.0
"""Between two tries to open a sink that did not open."""
TOLD_ALOUD = 3
"""Times that one sink's failing interrupts the user: a disk that comes and goes would fill the screen."""


@runtime_checkable
class _SaysItself(Protocol):
    """A sink that knows why it cannot write, also between two writes."""

    @property
    def trouble(self) -> OSError | None: ...


@runtime_checkable
class _Counts(Protocol):
    """A sink that counts what it had to give up."""

    def take_lost(self) -> int: ...


class Guarded:
    """A sink whose OSErrors become notes (see `take_notes`), one when it fails and one when it works again.

    `what` is its name and `meanwhile` what becomes of what it should have written, for the notes. A `vouched` one may
    still fail in `flush`: a checkpoint must not be written that vouches for records which are not there.
    """

    def __init__(
        self, open_sink: Callable[[], Sink], what: str, meanwhile: str, *, vouched: bool = False
    ) -> None:
        self.what = what
        self._open_sink, self._meanwhile, self._vouched = open_sink, meanwhile, vouched
        self._step = 0
        self._failing = False
        self._failures = 0
        self._notes: list[Event] = []
        self._next_try = 0.0
        self.sink: Sink | None = None
        """None: it could not be opened yet."""
        self._call(lambda sink: None)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self._step = signals.step
        self._call(lambda sink: sink.step(signals, log=log))

    def event(self, event: Event) -> None:
        self._call(lambda sink: sink.event(event))

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self._call(lambda sink: sink.evaluation(step, results))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._call(lambda sink: sink.scalars(step, values))

    def flush(self) -> None:
        """Everything so far is on disk when this returns, if the sink is a vouched one.

        Raises:
            OSError: that of a vouched sink.
        """
        error = self._call(lambda sink: sink.flush())
        if error is not None and self._vouched:
            raise error

    def close(self) -> None:
        """Never fails: what could not be written has been told."""
        if self.sink is not None:
            with contextlib.suppress(OSError):
                self.sink.close()

    def take_notes(self) -> list[Event]:
        """What is to be told to the other sinks, and to this one."""
        notes, self._notes = self._notes, []
        return notes

    def _call(self, act: Callable[[Sink], None]) -> OSError | None:
        """Do it, if the sink is open or can be opened now; the error, if it failed."""
        error: OSError | None = None
        try:
            if self.sink is None:
                if time.monotonic() < self._next_try:
                    return None
                self._next_try = time.monotonic() + REOPEN_SECONDS
                self.sink = self._open_sink()
            act(self.sink)
        except OSError as failed:
            error = failed
        sink = self.sink
        trouble = sink.trouble if error is None and isinstance(sink, _SaysItself) else error
        if trouble is not None and not self._failing:
            self._note_failure(trouble)
        elif trouble is None and self._failing:
            self._note_recovery()
        return error

    def _note_failure(self, error: OSError) -> None:
        self._failing = True
        self._failures += 1
        reason = error.strerror or str(error) or type(error).__name__
        text = f"warning: {self.what} cannot be written: {reason}; training goes on, {self._meanwhile}"
        self._note("record_failing", text)

    def _note_recovery(self) -> None:
        self._failing = False
        lost = self.sink.take_lost() if isinstance(self.sink, _Counts) else 0
        text = f"{self.what} can be written again" + (f"; {lost} of its entries were lost" if lost else "")
        self._note("record_works_again", text)

    def _note(self, name: str, text: str) -> None:
        aloud = self._failures <= TOLD_ALOUD
        self._notes.append(Event(self._step, "note", name, text, aloud, {"record": self.what}))


def guarded(sink: Sink) -> Guarded:
    """A sink of the caller's own, so that a full disk under it does not end the training either."""
    return Guarded(lambda: sink, type(sink).__name__, "what it is told meanwhile may be missing")
