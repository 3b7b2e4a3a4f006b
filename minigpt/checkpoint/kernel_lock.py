"""Locks of the kernel on a folder: gone with the process that took them, whatever else it leaves behind."""

import contextlib
import errno
import os
import sys
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

LOCK_NAME, SOFT_LOCK_NAME = ".lock", ".lock_soft"
# NFS without a lock daemon, some FUSE file systems; EBADF: NFS wants a file open for writing, so no folder.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL))
_STALE_AFTER_TRIES = 100


class TakenError(Exception):
    """Another process holds the folder; `soft`: as far as a file system without locks can tell."""

    def __init__(self, *, soft: bool) -> None:
        super().__init__()
        self.soft = soft


class KernelLock:
    """The lock on `folder`, which exists, until `release`.

    Both the folder and the file `.lock` in it are locked: the file alone could be deleted under the run, a lock on
    the folder alone does not reach across NFS. Where the file system has no locks at all, a marker file stands in.

    Raises:
        TakenError: another process has it.
        FileNotFoundError: the folder was removed meanwhile.
        OSError: it cannot be opened or written.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptors: list[int] = []
        self._others: list[FileLock] = []
        try:
            self._take(folder)
        except BaseException:
            self.release()
            raise
        # A forked child would keep the lock alive after its parent was killed.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close)

    @property
    def folder_descriptor(self) -> int | None:
        """Of the folder itself; while it is open no other folder can have its number. None on Windows."""
        return self._descriptors[0] if self._descriptors else None

    def release(self) -> None:
        """Let go of it; more than once is fine."""
        for lock in self._others:
            lock.release()
        self._others.clear()
        self._close()

    def _close(self) -> None:
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()

    def _take(self, folder: Path) -> None:
        if sys.platform == "win32":
            self._take_by_library(FileLock(folder / LOCK_NAME, timeout=0), soft=False)
            return
        self._descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        _lock(self._descriptors[0])
        for _ in range(_STALE_AFTER_TRIES):
            self._descriptors.append(_open(folder / LOCK_NAME))
            locked = _lock(self._descriptors[1])
            if _is_at(self._descriptors[0], folder) and _is_at(self._descriptors[1], folder / LOCK_NAME):
                break
            # Removed by the one that had it until now.
            if not _is_at(self._descriptors[0], folder):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
            os.close(self._descriptors.pop())
        else:
            raise OSError(errno.EAGAIN, "its lock file is replaced all the time", str(folder / LOCK_NAME))
        if not locked:
            self._take_by_library(SoftFileLock(folder / SOFT_LOCK_NAME, timeout=0), soft=True)

    def _take_by_library(self, lock: FileLock, *, soft: bool) -> None:
        try:
            lock.acquire()
        except Timeout as error:
            raise TakenError(soft=soft) from error
        self._others.append(lock)


def _lock(descriptor: int) -> bool:
    """Whether it is locked now; False where the file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TakenError(soft=False) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's, who may or may not be running: its lock will tell
        return os.open(path, os.O_RDONLY)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still leads to what `descriptor` has open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
