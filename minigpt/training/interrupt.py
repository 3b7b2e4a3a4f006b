"""Ctrl-C and SIGTERM: finish the step, save, exit; a second one leaves at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


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
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.signal = signal.Signals(number)
        if self._stop_at_once:
            raise Interrupted


@contextmanager
def caught_signals() -> Iterator[Interrupt]:
    """An Interrupt that SIGINT and SIGTERM set while the block runs."""
    interrupt = Interrupt()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt._handle)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
