"""The terminal: interrupting events always, step lines where no progress bar shows them."""

from collections.abc import Callable, Mapping

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.lines import evaluation_line, step_line


class ConsoleSink:
    """Prints through `write`, so that a progress bar's own writer (tqdm.write) can be used.

    What a terminal that is gone, or a file that is full, does not take is not printed later: the log has it.
    """

    def __init__(self, write: Callable[[str], None] = print, *, show_steps: bool = True) -> None:
        self._write = write
        self._show_steps = show_steps
        self.trouble: OSError | None = None

    def step(self, signals: StepSignals, *, log: bool) -> None:
        if log and self._show_steps:
            self._say(step_line(signals))

    def event(self, event: Event) -> None:
        if event.interrupts:
            self._say(event.text)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self._say(evaluation_line(step, results))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Not for the terminal."""

    def flush(self) -> None:
        """The terminal keeps nothing back."""

    def close(self) -> None:
        """The terminal stays open."""

    def _say(self, text: str) -> None:
        try:
            self._write(text)
        except UnicodeEncodeError as error:  # a terminal, or a file, that knows no more than ASCII
            self._say(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            return
        except ValueError as error:  # what Python says of a stream that the program closed
            self.trouble = OSError(str(error))
        except OSError as error:
            self.trouble = error
        else:
            self.trouble = None
