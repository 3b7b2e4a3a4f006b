"""What a person at the terminal sees: a bar where there is one to watch it, plain lines elsewhere."""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from minigpt.planning.eta import eta_text, steady_step_seconds
from minigpt.training_monitor.signals import StepSignals

# Enough steps for an honest estimate, or enough waiting for a first one.
ETA_STEPS, ETA_SECONDS = 7, 60.0

# All of it fits a terminal of 80 columns; tqdm's own cuts the end off.
BAR_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} ETA {remaining}{postfix}"


class Progress:
    """The terminal of the main rank; silent on the others."""

    def __init__(
        self, max_steps: int, device_type: str, *, is_main: bool, smaller_preset: str | None
    ) -> None:
        self._max_steps, self._device_type, self._smaller_preset = max_steps, device_type, smaller_preset
        self._is_main = is_main
        self.has_bar = is_main and sys.stdout.isatty()
        self._bar: tqdm[Any] | None = None
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
        """One or more lines, above the bar."""
        if self._is_main:
            with self._while_there_is_a_terminal():
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()

    def step(self, signals: StepSignals) -> None:
        """Move the bar; once the pace is known, say when the run will be done."""
        if self._bar is not None:
            with self._while_there_is_a_terminal():
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
        if self._bar is not None:
            with self._while_there_is_a_terminal():
                self._bar.close()
            self._bar = None

    @contextmanager
    def _while_there_is_a_terminal(self) -> Iterator[None]:
        """Goes silent when the terminal was closed: the run has yet to save itself."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._is_main, self._bar = False, None
