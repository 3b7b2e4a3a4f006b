"""What a person at the terminal sees: a bar where there is one to watch it, plain lines elsewhere."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

from minigpt.planning.eta import eta_text, steady_step_seconds
from minigpt.training_monitor.signals import StepSignals

# Enough steps for an honest estimate, or enough waiting for a first one.
ETA_STEPS, ETA_SECONDS = 7, 60.0

# All of it fits a terminal of 80 columns; tqdm's own cuts the end off.
_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ESTALE, errno.EROFS))
BAR_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} ETA {remaining}{postfix}"

GONE_FOR_GOOD = (errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO, errno.ENOTCONN, errno.ECONNRESET)
"""What writing to a closed terminal, or to a pipe that nobody reads any more, says."""


class Progress:
    """The terminal of the main rank; silent on the others."""

    def __init__(
        self, max_steps: int, device_type: str, *, is_main: bool, smaller_preset: str | None
    ) -> None:
        self._max_steps, self._device_type, self._smaller_preset = max_steps, device_type, smaller_preset
        self._is_main = is_main
        self.has_bar = is_main and sys.stdout.isatty()
        self._bar: tqdm[Any] | None = None
        self._is_gone = False
        self.trouble: OSError | None = None
        """Why what was said last could not be printed: the terminal was closed, or the file behind it is full."""
        self._step_seconds: list[float] = []
        self._said_eta = False
        self._started_at = time.monotonic()

    def start(self, step: int) -> None:
        """Show the bar, standing at `step`."""
        if self.has_bar:
            self._bar = tqdm(
                total=self._max_steps,
                initial=step,
                unit="step",
                dynamic_ncols=True,
                file=sys.stdout,
                smoothing=0.1,
                bar_format=BAR_FORMAT,
            )

    def say(self, text: str) -> None:
        """One or more lines, above the bar; where nobody can be told, `trouble` says why."""
        if not self._is_main or self._is_gone:
            return
        try:
            with self._until_the_terminal_is_gone():
                tqdm.write(_printable(text), file=sys.stdout)
                sys.stdout.flush()
        except OSError as error:
            self.trouble = error
        else:
            self.trouble = None

    def step(self, signals: StepSignals) -> None:
        """Move the bar; once the pace is known, say when the run will be done."""
        if self._bar is not None:
            with suppress(OSError), self._until_the_terminal_is_gone():
                self._bar.set_postfix_str(
                    f"loss {signals.loss:.3f} grad {signals.grad_norm:.3g} lr {signals.lr:.1e} "
                    f"{signals.tokens_per_second:,.0f} tok/s",
                    refresh=False,
                )
                self._bar.update(signals.step - self._bar.n)
        if not self._said_eta:
            self._step_seconds.append(signals.seconds)
            self._say_eta(self._max_steps - signals.step)

    def _say_eta(self, steps_left: int) -> None:
        seconds = steady_step_seconds(self._step_seconds)
        long_enough = time.monotonic() - self._started_at > ETA_SECONDS
        if seconds and (long_enough or len(self._step_seconds) >= ETA_STEPS):
            self._said_eta = True
            eta = eta_text(
                seconds, steps_left, device_type=self._device_type, smaller_preset=self._smaller_preset
            )
            self.say(f"Time left, without evaluations: {eta} ({seconds:.3g} s a step)")

    def pace_changed(self) -> None:
        """Forget the steps measured so far: compiled code has another pace."""
        self._step_seconds, self._said_eta, self._started_at = [], False, time.monotonic()

    def close(self) -> None:
        """Leave the bar as it stands."""
        with suppress(OSError), self._until_the_terminal_is_gone():
            if self._bar is not None:
                self._bar.close()
        self._bar = None
        with suppress(ValueError):
            try:
                sys.stdout.flush()
            except OSError:
                # What is left unwritten would make Python end a run that went well with an exit code of its own.
                _let_go_of_stdout()

    @contextmanager
    def _until_the_terminal_is_gone(self) -> Iterator[None]:
        """Lets the error through that says so, and goes silent: the run has yet to finish, or to save itself.

        A full disk behind `> log.txt` may have room again: then only this one line is missing.
        """
        try:
            yield
        except ValueError as error:  # what Python says of a closed stream
            self._bar, self._is_gone = None, True
            raise OSError(errno.EBADF, str(error)) from error
        except OSError as error:
            if error.errno in GONE_FOR_GOOD:
                self._bar, self._is_gone = None, True
                _let_go_of_stdout()
            raise


def say_line(text: str) -> None:
    """The same where no run is under way yet: a terminal that is gone keeps none from beginning."""
    with suppress(OSError, ValueError):
        print(_printable(text), flush=True)


def _printable(text: str) -> str:
    """The text in what the terminal can show: one that knows no more than ASCII stops no run."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _let_go_of_stdout() -> None:
    """Point standard output to nowhere, so that what it still holds does no harm."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
