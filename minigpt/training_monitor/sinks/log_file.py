"""logs/training.log: for people, grep and tail."""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.lines import evaluation_line, step_line

if sys.platform != "win32":
    import fcntl

MOST_BYTES, KEPT = 64 << 20, 4
"""A log that is larger becomes training.log.1, that one training.log.2, and so on; the oldest goes."""
MOST_HELD_LINES = 10_000
"""Kept for later while the disk refuses."""
LONGEST_WAIT_SECONDS = 5.0


class LogFileSink:
    """Appends lines, each in one write. History is never rewritten: a resume is a line of its own.

    Any number of runs may append to one log. When it has grown to `most_bytes` its content is copied to
    `path`.1 and it begins again as the same file, so `tail -f` goes on; a lock keeps everybody else's lines out of
    the moment in between.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._most_bytes, self._kept = path, most_bytes, kept
        self._held: deque[bytes] = deque(maxlen=MOST_HELD_LINES)
        self._lost = 0
        self._descriptor: int | None = None
        self._is_torn = False
        self.trouble: OSError | None = None
        self._open()

    def step(self, signals: StepSignals, *, log: bool) -> None:
        if log:
            self._write(step_line(signals))

    def event(self, event: Event) -> None:
        if event.interrupts or event.kind in ("resume", "save"):
            self._write(event.text)

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self._write(evaluation_line(step, results))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        numbers = " ".join(f"{name}={value:g}" for name, value in values.items())
        self._write(f"Step {step}: {numbers}")

    def flush(self) -> None:
        """What the disk takes is on it when this returns."""
        self._write_held(patient=False)
        if self._descriptor is None:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EROFS):  # a log that is /dev/null, or a pipe
                raise

    def close(self) -> None:
        self._write_held(patient=False)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def take_lost(self) -> int:
        lost, self._lost = self._lost, 0
        return lost

    def _write(self, text: str) -> None:
        self._lost += len(self._held) == MOST_HELD_LINES
        self._held.append(text.encode("utf-8", "backslashreplace") + b"\n")
        self._write_held(patient=True)

    def _write_held(self, *, patient: bool) -> None:
        """Write what is held. `patient`: while another run begins a new log it can wait for the next line; else it is
        waited for that one, which takes a moment, unless it was stopped in the middle of it."""
        try:
            descriptor = self._open()
            with _locked(
                descriptor, exclusive=False, wait_seconds=0.0 if patient else LONGEST_WAIT_SECONDS
            ) as is_ours:
                if not is_ours and patient:
                    return
                while self._held:
                    # Whatever half line the disk took when it was full ends where this one begins.
                    data = b"\n" * self._is_torn + self._held[0]
                    written = os.write(descriptor, data)
                    if written != len(data):
                        self._is_torn = True
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    self._is_torn = False
                    self._held.popleft()
            self.trouble = None
            if os.fstat(descriptor).st_size >= self._most_bytes:
                self._begin_anew(descriptor)
        except OSError as error:
            self.trouble = error

    def _open(self) -> int:
        """The log, made again where somebody moved or deleted it."""
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                    return self._descriptor
            os.close(self._descriptor)
            self._descriptor = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        return self._descriptor

    def _begin_anew(self, descriptor: int) -> None:
        """Nothing, where another run is at it, is writing, or the disk has no room for the copy."""
        with _locked(descriptor, exclusive=True, wait_seconds=0.0) as is_ours, contextlib.suppress(OSError):
            if not is_ours or os.fstat(descriptor).st_size < self._most_bytes:
                return
            copy = self._path.with_name(f".{self._path.name}.copy")
            try:
                shutil.copyfile(self._path, copy)
                oldest = next(number for number in count(1) if not self._numbered(number).exists())
                for number in range(min(oldest, self._kept) - 1, 0, -1):
                    self._numbered(number).replace(self._numbered(number + 1))
                copy.replace(self._numbered(1))
                os.ftruncate(descriptor, 0)
            finally:
                copy.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


@contextmanager
def _locked(descriptor: int, *, exclusive: bool, wait_seconds: float) -> Iterator[bool]:
    """Whether the lock is held in the block: not where it would have to be waited for longer, or there are no locks."""
    if sys.platform == "win32":
        yield not exclusive
        return
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= until:
                yield False
                return
            time.sleep(0.01)
        except OSError:  # a file system without locks: nobody begins a new log on it
            yield not exclusive
            return
    try:
        yield True
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
