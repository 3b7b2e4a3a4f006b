"""Ctrl-C, SIGTERM and a closed terminal: finish the step, save, exit; a second one leaves at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STOPPING = b"\nstopping: the step is finished and saved first (again: leave at once, without saving) ...\n"


class Interrupted(BaseException):
    """Raised where stopping at once loses nothing. A BaseException, so that no library on the way swallows it."""


class Interrupt:
    """Whether the user, or the machine, asked this process to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._stop_at_once = False

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 + the signal's number; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block nothing is half done: a signal raises Interrupted right away (compiling, preparing)."""
        if self:
            raise Interrupted
        self._stop_at_once = True
        try:
            yield
        finally:
            self._stop_at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The default handlers come back first: the second signal ends the process whatever it is doing.
        for caught in _caught_numbers():
            signal.signal(caught, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.signal = signal.Signals(number)
        if self._stop_at_once:
            raise Interrupted
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":
            # A step may take minutes. Past Python's buffers: the signal may have come in the middle of a print.
            with suppress(OSError):
                os.write(2, _STOPPING)


@contextmanager
def caught_signals() -> Iterator[Interrupt]:
    """An Interrupt that SIGINT, SIGTERM and SIGHUP set while the block runs."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in _caught_numbers()}
    for number in before:
        signal.signal(number, interrupt._handle)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _caught_numbers() -> list[signal.Signals]:
    """SIGHUP only where it is not ignored: nohup makes a run outlive its terminal."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        numbers.append(hang_up)
    return numbers
