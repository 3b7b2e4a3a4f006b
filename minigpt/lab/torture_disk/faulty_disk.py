"""A disk that refuses: this process's file-system calls below a folder, counted, and one or all from one on failing."""

import builtins
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

CHANGES = frozenset(("create", "write", "fsync", "rename", "mkdir"))
"""Calls that need room."""
REFUSALS: dict[int, frozenset[str]] = {
    errno.ENOSPC: CHANGES,
    errno.EDQUOT: CHANGES,
    errno.EIO: frozenset((*CHANGES, "open", "unlink", "rmdir", "list", "statvfs")),
    errno.EROFS: frozenset(("create", "rename", "mkdir", "unlink", "rmdir")),
    errno.EACCES: frozenset(("create", "open", "rename", "mkdir", "unlink", "rmdir", "list")),
    errno.ESTALE: frozenset((*CHANGES, "open", "unlink", "rmdir", "list", "statvfs")),
    errno.EMFILE: frozenset(("create", "open", "list")),
    errno.EFBIG: frozenset(("write",)),
}
"""Error -> the kinds of calls that a system refuses with it."""
DEAD_PROCESS = 99_999_999
_KINDS = {"replace": "rename", "remove": "unlink", "scandir": "list", "listdir": "list"}
_REFUSED_CALLS = ("fsync", "unlink", "rmdir", "mkdir", "rename", "statvfs", *_KINDS)


@dataclass
class FaultyDisk:
    """What was called, and what is refused.

    Only calls of the main thread count, so that the k-th is the same one in every run.
    """

    root: Path
    error: int = errno.EIO
    fails_at: int | None = None
    """Index of the first call (of those that `error` fits) to fail; None: none does."""
    forever: bool = False
    """Whether all later ones fail as well: a disk that stays full."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Kind and path of the calls that `error` fits."""
    refused: int = 0
    on_refusal: Callable[[], None] = lambda: None
    """Called before the first refusal, to look at what is there."""

    def meet(self, kind: str, path: object) -> None:
        """Count a call; raises the OSError where it is to fail."""
        if kind not in REFUSALS[self.error] or threading.current_thread() is not threading.main_thread():
            return
        place = self._below_root(path)
        if place is None:
            return
        index = len(self.calls)
        self.calls.append((kind, place))
        if self.fails_at is not None and (index == self.fails_at or (self.forever and index > self.fails_at)):
            self.refused += 1
            if self.refused == 1:
                at, self.fails_at = self.fails_at, None  # looking is not to be refused
                self.on_refusal()
                self.fails_at, self.calls[index + 1 :] = at, []
            raise OSError(self.error, os.strerror(self.error), os.path.join(self.root, place))  # noqa: PTH118

    def holds(self, path: object) -> bool:
        """Whether `path` lies on it."""
        return self._below_root(path) is not None

    def _below_root(self, path: object) -> str | None:
        """The path from the root on; None where it leads elsewhere."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
            except OSError:  # no Linux: then what has a number and no name is not refused
                return None
        if not isinstance(path, str | os.PathLike):
            return None
        full, root = os.path.abspath(path), str(self.root)  # noqa: PTH100 - a link stays one
        return full[len(root) + 1 :] if full.startswith(root + os.sep) else None


class _Raw(io.FileIO):
    """A file whose writes may be refused, after half of them is on disk."""

    def __init__(self, path: Any, mode: str, disk: FaultyDisk) -> None:
        super().__init__(path, mode)
        self._disk, self._path = disk, path

    def write(self, data: Any) -> int:
        try:
            self._disk.meet("write", self._path)
        except OSError:
            super().write(memoryview(data)[: len(data) // 2])
            raise
        return super().write(data)


class _Calls:
    """The system's own calls, each asking the disk first."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk, self._open, self._open_file, self._save = disk, os.open, io.open, torch.save

    def refusing(self, name: str) -> Callable[..., Any]:
        own, kind, disk = getattr(os, name), _KINDS.get(name, name), self._disk

        def call(path: Any = ".", *rest: Any, **named: Any) -> Any:
            # Relative to an open folder (shutil.rmtree): where that is cannot be told from here.
            if named.get("dir_fd") is None:
                disk.meet(kind, path)
            return own(path, *rest, **named)

        return call

    def open(self, path: Any, flags: int, *rest: Any, **named: Any) -> Any:
        if named.get("dir_fd") is None:
            self._disk.meet("create" if flags & os.O_CREAT else "open", path)
        return self._open(path, flags, *rest, **named)

    def open_file(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if isinstance(file, int) or not self._disk.holds(file):
            return self._open_file(file, mode, buffering, *rest, **named)
        if not set(mode) & set("wax+"):
            self._disk.meet("open", file)
            return self._open_file(file, mode, buffering, *rest, **named)
        self._disk.meet("create", file)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), self._disk)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, *rest, **named)
        text.reconfigure(line_buffering=buffering == 1)
        return text

    def save(self, content: Any, file: Any, *rest: Any, **named: Any) -> None:
        """torch's own writer opens the file past Python."""
        if not self._disk.holds(file):
            self._save(content, file, *rest, **named)
            return
        with self.open_file(file, "wb") as stream:
            self._save(content, stream, *rest, **named)


@contextmanager
def installed(disk: FaultyDisk) -> Iterator[None]:
    """Every file-system call of Python code in this process goes through `disk` while the block lasts.

    It calls itself another process meanwhile: what that leaves behind is a dead process's.
    """
    calls = _Calls(disk)
    patches: list[tuple[Any, str, Any]] = [(os, name, calls.refusing(name)) for name in _REFUSED_CALLS]
    patches += [(os, "open", calls.open), (io, "open", calls.open_file), (builtins, "open", calls.open_file)]
    patches += [(torch, "save", calls.save), (os, "getpid", lambda: DEAD_PROCESS)]
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    try:
        for module, name, patched in patches:
            setattr(module, name, patched)
        yield
    finally:
        for module, name, original in before:
            setattr(module, name, original)
