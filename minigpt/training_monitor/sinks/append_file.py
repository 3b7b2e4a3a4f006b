"""A file that only grows, whatever its disk does: what cannot be written waits in memory, nothing is half written."""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable
from itertools import accumulate, islice
from pathlib import Path

HELD_BYTES = 64 << 20
"""Most that waits in memory for a disk that refuses; what comes after that is lost, and counted."""
SYNC_BYTES = 4 << 20
"""So much may be on its way to the disk without anybody having asked for a flush."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
"""Between two tries at a disk that refuses; each wait is twice the one before."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write other ends of lines
_PIECE_BYTES = 1 << 20


class AppendFile:
    """Appends records (bytes, each whole by itself) to a file that this process alone writes.

    A record stays in memory until the disk has confirmed it, because after a failed fsync the system may drop what
    it had taken. Where a write or a sync fails, the file is cut back to the last confirmed record and written
    again from there, as soon as the disk lets it: no record twice, none torn, none missing, also when the file was
    deleted or its disk was mounted anew meanwhile.

    Nothing is opened before the first record; `choose` gives the path then. `start` bytes of the file are kept.
    """

    def __init__(
        self,
        choose: Callable[[], Path],
        *,
        start: int = 0,
        digest: "hashlib._Hash | None" = None,
        makes_folder: bool = True,
    ) -> None:
        """`makes_folder`: whether the folder that the file lies in is made (again) where it is not there."""
        self._choose, self._makes_folder = choose, makes_folder
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._confirmed, self._digest = start, digest or hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._written = 0
        """Of the waiting records, those that the system has taken but not confirmed."""
        self._lost = 0
        self._trouble: OSError | None = None
        self._is_in_doubt = False
        """Whether something failed since the file was cut back to what is confirmed."""
        self._wait_seconds, self._next_try = 0.0, 0.0

    @property
    def confirmed(self) -> tuple[int, str]:
        """How many bytes of the file are on the disk for certain, and their SHA-256."""
        return self._confirmed, self._digest.hexdigest()

    @property
    def trouble(self) -> OSError | None:
        """Why the disk refuses at present; None: it does not."""
        return self._trouble

    def append(self, record: bytes) -> None:
        """Takes the record in, and writes it now or, where the disk refuses, later."""
        if self._trouble is not None and self._waiting_bytes + len(record) > HELD_BYTES:
            self._lost += 1
            record = b""
        if record:
            self._waiting.append(record)
            self._waiting_bytes += len(record)
        with contextlib.suppress(OSError):  # it is kept as trouble
            if self._trouble is None:
                self._attempt(self._sync if self._waiting_bytes > SYNC_BYTES else self._write)
            elif time.monotonic() >= self._next_try:
                self._attempt(self._sync)

    def flush(self) -> None:
        """Every record is on the disk when this returns.

        Raises:
            OSError: they are not; they are kept, and written later.
        """
        try:
            self._attempt(self._sync)
        except FileNotFoundError:  # it was deleted: that can be mended now, or not at all
            self._attempt(self._sync)

    def close(self) -> None:
        """Flushes and lets go of the file.

        Raises:
            OSError: what was still waiting is lost.
        """
        try:
            if self._waiting:
                self.flush()
        finally:
            self._let_go()

    def take_lost(self) -> int:
        """How many records were lost since this was asked last."""
        lost, self._lost = self._lost, 0
        return lost

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._trouble = error
            self._wait_seconds = min(max(2 * self._wait_seconds, FIRST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
            self._next_try = time.monotonic() + self._wait_seconds
            raise
        self._trouble, self._wait_seconds = None, 0.0

    def _write(self) -> None:
        """Hand the system every waiting record that it does not have yet."""
        descriptor = self._opened()
        try:
            while self._written < len(self._waiting):
                piece = self._next_piece()
                data = b"".join(piece)
                taken = os.write(descriptor, data)
                if taken == len(data):
                    self._written += len(piece)
                    continue
                # The system takes less than it was given where the disk, or the quota, ends.
                self._written += sum(end <= taken for end in accumulate(map(len, piece)))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # What a full disk has taken stays, but for the half record at its end; of other errors, who knows.
            self._is_in_doubt = error.errno not in FULL or not self._trimmed(descriptor)
            raise

    def _next_piece(self) -> list[bytes]:
        """Records not yet written, about a megabyte of them."""
        piece, size = [], 0
        for record in islice(self._waiting, self._written, None):
            piece.append(record)
            size += len(record)
            if size > _PIECE_BYTES:
                break
        return piece

    def _trimmed(self, descriptor: int) -> bool:
        """Cut the file back to its last whole record; False where the disk does not let it."""
        try:
            os.ftruncate(descriptor, self._confirmed + sum(map(len, self._waiting[: self._written])))
        except OSError:
            return False
        return True

    def _sync(self) -> None:
        self._write()
        descriptor, self._is_in_doubt = self._opened(), True
        os.fsync(descriptor)
        if not self._is_in_place(descriptor):
            raise FileNotFoundError(errno.ENOENT, "deleted or replaced while it was written", str(self._path))
        for record in self._waiting:
            self._digest.update(record)
        self._confirmed += self._waiting_bytes
        self._waiting.clear()
        self._waiting_bytes = self._written = 0
        self._is_in_doubt = False

    def _opened(self) -> int:
        """The file, cut back to what is confirmed where the last try failed."""
        if self._descriptor is None or self._is_in_doubt:
            self._reopen()
        assert self._descriptor is not None
        return self._descriptor

    def _reopen(self) -> None:
        path = self._path = self._path or self._choose()
        short = self._confirmed > (path.stat().st_size if path.exists() else 0)
        if short and not self._is_same_disk(path):
            raise FileNotFoundError(errno.ENOENT, "its disk is not there any more", str(path))
        if self._makes_folder:
            path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
        try:
            if short:
                self._bring_back(descriptor)
            os.ftruncate(descriptor, self._confirmed)
            sync_folder(path.parent)
        except OSError:
            os.close(descriptor)
            raise
        self._let_go()
        self._descriptor, self._written, self._is_in_doubt = descriptor, 0, False

    def _is_same_disk(self, path: Path) -> bool:
        """Whether a file at `path` would lie where the open one lay: an empty mount point is another disk."""
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        return self._descriptor is not None and os.fstat(self._descriptor).st_dev == folder.stat().st_dev

    def _bring_back(self, descriptor: int) -> None:
        """Write again what the file held: it was deleted or cut, and what is still open may have it."""
        old = self._descriptor
        if old is None or os.fstat(old).st_size < self._confirmed:
            raise OSError(errno.EIO, "it has lost what was written to it", str(self._path))
        os.ftruncate(descriptor, 0)
        at = 0
        while at < self._confirmed:
            data = os.pread(old, min(_PIECE_BYTES, self._confirmed - at), at)
            if not data or os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            at += len(data)

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the path still leads to the open file."""
        assert self._path is not None
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def sync_folder(folder: Path) -> None:
    """Force the file's name to the disk; not every system lets folders be opened for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
