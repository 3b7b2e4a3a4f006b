"""How far a long pass over the corpus has come, and whether somebody wants it to stop."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from minigpt.errors import MiniGPTError

T = TypeVar("T")
ShouldStop = Callable[[], bool]
Tick = Callable[[int], None]
"""Called with the bytes just done, often; raises PreparationStoppedError when asked to stop."""

PATIENCE_SECONDS = 30.0
"""Without anything read for so long, it says so."""
_SHOWN_AFTER_SECONDS = 0.5
_POLL_SECONDS = 0.1
_QUIET_SECONDS = 1.0
_GRACE_SECONDS = 5.0


class PreparationStoppedError(MiniGPTError):
    """The preparation was asked to stop; nothing half-made was left behind."""

    def __init__(self) -> None:
        super().__init__("preparing the corpus was stopped on request; nothing half-made was kept")


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Watch:
    """Watches over the passes: a bar with MB/s on a terminal, silence elsewhere."""

    def __init__(self, should_stop: ShouldStop, *, shown: bool) -> None:
        self._should_stop, self._shown = should_stop, shown
        self._left = threading.Event()
        self._pass: str | None = None
        self._ticked_at = time.monotonic()
        self._told = False

    @contextmanager
    def over(self, what: str, total_bytes: int | None) -> Iterator[Tick]:
        """The tick of one pass over the corpus."""
        with tqdm(
            desc=what,
            total=total_bytes,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            delay=_SHOWN_AFTER_SECONDS,
            disable=not (self._shown and sys.stderr.isatty()),
        ) as bar:

            def tick(done_bytes: int) -> None:
                bar.update(done_bytes)
                self._tick()

            self._pass, self._ticked_at = what, time.monotonic()
            try:
                yield tick
            finally:
                self._pass = None

    def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in a thread: a read that hangs would keep this one from hearing Ctrl-C.

        Raises:
            PreparationStoppedError: somebody wants it to stop, and it has not looked up for a while.
        """
        done: Future[T] = Future()

        def finish() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        thread = threading.Thread(target=finish, name="prepare", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                self._look()
            return done.result()
        finally:
            # However this ends, the next tick ends the work, which cleans up behind itself. A hanging one is left.
            self._left.set()
            thread.join(_GRACE_SECONDS)

    def _tick(self) -> None:
        self._ticked_at = time.monotonic()
        if self._left.is_set() or self._should_stop():
            raise PreparationStoppedError

    def _look(self) -> None:
        quiet = time.monotonic() - self._ticked_at
        if quiet > _QUIET_SECONDS and self._should_stop():
            raise PreparationStoppedError
        if quiet > PATIENCE_SECONDS and self._pass is not None and not self._told:
            self._told = True
            line = f"{self._pass}: nothing read for {PATIENCE_SECONDS:.0f} seconds: a stuck disk, mount or network?"
            print(f"{line} Still waiting; Ctrl-C leaves, and loses nothing", file=sys.stderr, flush=True)
