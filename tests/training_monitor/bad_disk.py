"""A disk that refuses now and then, at the calls into the system: short writes, errors, what fsync had to give up."""

import errno
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.ESTALE)


class BadDisk:
    """While `share` > 0 that share of the calls fails. The clock runs a second with every call for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> None:
        self.share = 0.0
        self.faults = 0
        self._random = random.Random(seed)
        self._now = 0.0
        self._own: dict[str, Callable[..., Any]] = {
            name: getattr(os, name) for name in ("write", "fsync", "ftruncate", "open")
        }
        self._confirmed: dict[int, int] = {}
        module = "minigpt.training_monitor.sinks.append_file"
        monkeypatch.setattr(f"{module}.time.monotonic", self._tick)
        for name in self._own:
            monkeypatch.setattr(f"{module}.os.{name}", getattr(self, f"_{name}"))

    def _tick(self) -> float:
        self._now += 1.0
        return self._now

    def _fails(self) -> bool:
        failed = self._random.random() < self.share
        self.faults += failed
        return failed

    def _error(self) -> OSError:
        number = self._random.choice(ERRORS)
        return OSError(number, os.strerror(number))

    def _write(self, descriptor: int, data: bytes) -> int:
        if self._fails():
            if self._random.random() < 0.5:
                return int(self._own["write"](descriptor, data[: self._random.randrange(len(data))]))
            raise self._error()
        return int(self._own["write"](descriptor, data))

    def _fsync(self, descriptor: int) -> None:
        if self._fails():
            # What had not been confirmed is gone, and the next fsync will say that all is well.
            size = self._confirmed.get(os.fstat(descriptor).st_ino, 0)
            if os.path.isfile(f"/proc/self/fd/{descriptor}") and os.fstat(descriptor).st_size > size:  # noqa: PTH113
                self._own["ftruncate"](descriptor, size)
            raise self._error()
        self._own["fsync"](descriptor)
        self._confirmed[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def _ftruncate(self, descriptor: int, length: int) -> None:
        if self._fails():
            raise self._error()
        self._own["ftruncate"](descriptor, length)

    def _open(self, *arguments: Any, **named: Any) -> int:
        if self._fails():
            raise self._error()
        return int(self._own["open"](*arguments, **named))
