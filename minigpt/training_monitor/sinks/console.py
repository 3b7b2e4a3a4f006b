"""The terminal: interrupting events always, step lines where no progress bar shows them."""

from collections.abc import Callable, Mapping

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.lines import evaluation_line, step_line


class ConsoleSink:
    """Prints through `write`, so that a progress bar's own writer (tqdm.write) can be used."""

    def __init__(self, write: Callable[[str], None] = print, *, show_steps: bool = True) -> None:
        self._write = write
        self._show_steps = show_steps

    def step(self, signals: StepSignals, *, log: bool) -> None:
        if log and self._show_steps:
            self._write(step_line(signals))

    def event(self, event: Event) -> None:
        if event.interrupts:
            self._write(event.text)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self._write(evaluation_line(step, results))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Not for the terminal."""

    def flush(self) -> None:
        """The terminal keeps nothing back."""

    def close(self) -> None:
        """The terminal stays open."""
