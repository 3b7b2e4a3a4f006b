"""Files with a checksum for each block: written in one go, verified at every read, never memory-mapped.

Beside `train_00000.bin` lies `train_00000.crc`: the CRC-32 of each 8 KiB of it, little-endian, 4 bytes each. A read
takes whole blocks and checks them all, every time, so what changes under a running job is noticed at the read that
would use it. No memory maps: a truncated file, or a mount that went away, would end the process without a word
(SIGBUS).
"""

import errno
import hashlib
import os
import stat
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from minigpt.errors import DataError
from minigpt.schema import Config

BLOCK_BYTES = 8192
_CHECKSUM = np.dtype("<u4")
_MOST_OPEN = 64
# 0.05 % of the data they vouch for: those of 128 GiB. Beyond that they are read, and verified, again and again.
_MOST_CHECKSUM_BYTES = 64 << 20


# What stands in a file's place, rather than a disk that refuses; a FIFO or a device has no number.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, None)


class UnreadableError(DataError):
    """Prepared data that may well be whole: their disk does not give them at present."""


class StoredFile(Config):
    """A file of the folder, and what vouches for it."""

    # A name, never a path: what a manifest says must not lead out of its folder.
    file: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]*$")]
    bytes: Annotated[int, Field(ge=0)]
    sha256: str
    checksums_sha256: str
    """Of the file that holds the checksums of its blocks."""

    @property
    def checksums_bytes(self) -> int:
        """Of that file."""
        return -(-self.bytes // BLOCK_BYTES) * _CHECKSUM.itemsize


def checksums_name(file: str) -> str:
    """The name of the file that holds the checksums of `file`'s blocks."""
    return str(Path(file).with_suffix(".crc")) if file.endswith(".bin") else f"{file}.crc"


class BlockWriter:
    """Writes a file, and its checksums when it is finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("wb")
        self._digest = hashlib.sha256()
        self._bytes = self._crc = 0
        self._checksums: list[int] = []

    def write(self, data: bytes) -> None:
        """Adds `data`."""
        self._file.write(data)
        self._digest.update(data)
        view, start = memoryview(data), 0
        while start < len(view):
            end = min(len(view), start + BLOCK_BYTES - self._bytes % BLOCK_BYTES)
            self._crc = zlib.crc32(view[start:end], self._crc)
            self._bytes += end - start
            if self._bytes % BLOCK_BYTES == 0:
                self._end_block()
            start = end

    def finish(self) -> StoredFile:
        """Closes the file, writes its checksums, and returns what vouches for both."""
        self.close()
        if self._bytes % BLOCK_BYTES:
            self._end_block()
        checksums = np.array(self._checksums, _CHECKSUM).tobytes()
        self._path.with_name(checksums_name(self._path.name)).write_bytes(checksums)
        return StoredFile(
            file=self._path.name,
            bytes=self._bytes,
            sha256=self._digest.hexdigest(),
            checksums_sha256=hashlib.sha256(checksums).hexdigest(),
        )

    def close(self) -> None:
        """Closes the file, finished or not."""
        self._file.close()

    def _end_block(self) -> None:
        self._checksums.append(self._crc)
        self._crc = 0


class BlockReader:
    """Reads files of a prepared corpus's folder; any thread may. At most a few are open at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()
        self._checksums: OrderedDict[str, npt.NDArray[np.uint32]] = OrderedDict()
        self._reading: str | None = None

    @property
    def reading(self) -> Path | None:
        """The file of the read under way: where to look when it never ends."""
        return None if (name := self._reading) is None else self._folder / name

    def read(self, file: StoredFile, start: int, stop: int) -> bytes:
        """The bytes in [start, stop) of `file`.

        Raises:
            DataError: they cannot be read, or they, or what vouches for them, are not as they were written.
        """
        self._reading = file.file
        try:
            first, last = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
            begin, end = first * BLOCK_BYTES, min(last * BLOCK_BYTES, file.bytes)
            data = self._descriptor(file.file).read(begin, end - begin)
            if len(data) < end - begin:
                raise damaged(
                    self._folder / file.file,
                    f"it ends at byte {begin + len(data):,} instead of {file.bytes:,}",
                )
            wanted = self._checksums_of(file)[first:last]
        except OSError as error:
            refused = Path(error.filename or self._folder / file.file)
            if error.errno in _NOT_THERE:
                raise damaged(refused, error.strerror or str(error)) from error
            raise unreadable(refused, error) from error
        finally:
            self._reading = None
        view = memoryview(data)
        for number, checksum in enumerate(wanted.tolist()):
            block = view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            if zlib.crc32(block) != checksum:
                place = begin + number * BLOCK_BYTES
                found = f"bytes {place:,} to {place + len(block):,} are not as they were written"
                raise damaged(self._folder / file.file, found)
        return data[start - begin : stop - begin]

    def damage_of(self, file: StoredFile) -> Iterator[str]:
        """Reads all of a file; what is wrong with it, if anything is."""
        step = 128 * BLOCK_BYTES
        try:
            for start in range(0, file.bytes, step):
                self.read(file, start, min(start + step, file.bytes))
        except UnreadableError:
            raise
        except DataError as error:
            yield str(error)

    def _descriptor(self, name: str) -> "_Descriptor":
        with self._lock:
            if (known := self._open.get(name)) is not None:
                self._open.move_to_end(name)
                return known
        # Outside of the lock, because a stuck disk may keep it here; two threads at once merely open it twice.
        opened = _Descriptor(self._folder / name)
        with self._lock:
            self._open[name] = opened
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return opened

    def _checksums_of(self, file: StoredFile) -> npt.NDArray[np.uint32]:
        with self._lock:
            if (known := self._checksums.get(file.file)) is not None:
                self._checksums.move_to_end(file.file)
                return known
        path = self._folder / checksums_name(file.file)
        data = read_whole(path)
        if hashlib.sha256(data).hexdigest() != file.checksums_sha256:
            raise damaged(path, "it is not as it was written, or another corpus's")
        checksums = np.frombuffer(data, _CHECKSUM)
        with self._lock:
            self._checksums[file.file] = checksums
            while len(self._checksums) > 1 and self._held_bytes() > _MOST_CHECKSUM_BYTES:
                self._checksums.popitem(last=False)
        return checksums

    def _held_bytes(self) -> int:
        return sum(checksums.nbytes for checksums in self._checksums.values())


def read_whole(path: Path) -> bytes:
    """All bytes of a regular file, verified by nobody; OSError for everything else, a pipe among it."""
    descriptor = _Descriptor(path)
    return descriptor.read(0, descriptor.size)


def damaged(path: Path, found: str) -> DataError:
    """What to raise where a prepared file is not what was written."""
    return DataError(
        f"the prepared corpus is damaged: {path}: {found}; delete its folder, and it is prepared anew when next "
        f"needed, or by `minigpt prepare`: rm -r {path.parent}"
    )


def unreadable(path: Path, error: OSError) -> "UnreadableError":
    """What to raise where the disk refuses to give a prepared file."""
    return UnreadableError(
        f"the prepared corpus cannot be read: {path}: {error.strerror or error}; bring its disk or mount back, or "
        f"delete the folder, and it is prepared anew when next needed, or by `minigpt prepare`: rm -r {path.parent}"
    )


class _Descriptor:
    """An open regular file; closed when nobody refers to it any more, so never under a reading thread."""

    def __init__(self, path: Path) -> None:
        # Else opening a pipe that lies in the file's place would wait for ever.
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        status = os.fstat(self._number)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "it is no regular file", str(path))

    def read(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`, fewer only where the file ends."""
        parts: list[bytes] = []
        while count > 0 and (part := os.pread(self._number, count, start)):
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # Bound now: a thread that still reads when Python ends outlives the module `os`.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_number"):
            close(self._number)
