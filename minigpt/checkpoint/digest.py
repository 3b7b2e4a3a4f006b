"""Torch archives that carry a digest of their every byte, and the reading that trusts no byte before it was checked.

The file stays what `torch.save` writes. The digest is the comment that a zip file may end with: `minigpt-sha256:` and
the SHA-256, in hex, of all that stands before the hex digits.
"""

import hashlib
import os
import time
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from minigpt.atomic import atomic_path
from minigpt.checkpoint.archive import check_archive
from minigpt.checkpoint.damage import DamagedError, opened, said_as_damage

MAGIC = b"minigpt-sha256:"
_HEX_DIGITS = 64
_COMMENT = len(MAGIC) + _HEX_DIGITS
_END_RECORD, _END_RECORD_BYTES = b"PK\5\6", 22
"""The record that ends a zip file; its last two bytes are the length of the comment that follows."""
_BLOCK_BYTES = 1 << 20
_CLOCK_TICK_NS = 20_000_000
"""A file that changes twice within so short a time may show the same time of change."""
_CHECKED: dict[Path, tuple[tuple[int, ...], str | None]] = {}
"""What this process found in the files that it has read: as they were then, and what is wrong with them."""
_SLOW_TO_READ_BYTES = 1 << 26
"""Reading so much takes longer than that."""


class _Sealing:
    """What torch.save writes to: hashes the bytes on their way, and keeps the archive's end for `seal`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._held = file, hashlib.sha256(), b""

    def write(self, data: memoryview | bytes) -> int:
        view = memoryview(data).cast("B")
        if len(view) >= _END_RECORD_BYTES:
            self._pass_on(self._held)
            self._pass_on(view[:-_END_RECORD_BYTES])
            self._held = bytes(view[-_END_RECORD_BYTES:])
        else:
            held = self._held + bytes(view)
            self._pass_on(held[:-_END_RECORD_BYTES])
            self._held = held[-_END_RECORD_BYTES:]
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        assert self._held.startswith(_END_RECORD), "torch.save writes zip archives"
        assert self._held.endswith(b"\0\0"), "without a comment of its own"
        self._pass_on(self._held[:-2] + _COMMENT.to_bytes(2, "little") + MAGIC)
        self._file.write(self._digest.hexdigest().encode())

    def _pass_on(self, data: memoryview | bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors with their digest: all of it, durably, or nothing.

    Raises:
        OSError, RuntimeError: the disk refuses.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        sealing = _Sealing(file)
        torch.save(content, sealing)  # type: ignore[arg-type]  # it needs only write and flush
        sealing.seal()


def read_sealed(path: Path) -> Any:
    """The content, on the CPU. Nothing is unpickled before the checksum was found right, and then plain data and
    tensors only. Older files have no digest; there it is the CRC-32 of each of the archive's records.

    Raises:
        DamagedError: it is not as it was written, is no such file, or cannot be read.
    """
    with opened(path) as file:
        _check(path, file)
        file.seek(0)
        with said_as_damage(path):
            check_archive(path)
            return torch.load(file, map_location="cpu", weights_only=True)


def glance_at_sealed(path: Path, *, again: bool = False) -> Any:
    """The content with its tensors left on the disk, after the same checks.

    A file that has not changed since this process last checked it is not read again, but with `again`.
    """
    damage = damage_in(path) if again else _damage_remembered(path)
    if damage is not None:
        raise DamagedError(path, damage)
    with said_as_damage(path):
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def is_sealed(path: Path) -> bool:
    """Whether the file has a digest of its every byte (those of older versions have none)."""
    with opened(path) as file:
        return _tail(file, os.fstat(file.fileno()).st_size).startswith(MAGIC)


def damage_in(path: Path) -> str | None:
    """What is wrong with the bytes of the file; None where its checksum is right. Reads it through, in blocks."""
    try:
        with opened(path) as file:
            _check(path, file)
    except DamagedError as error:
        return error.what
    return None


def _damage_remembered(path: Path) -> str | None:
    """`damage_in`, but a file that is as it was the last time is not read again."""
    try:
        found = path.stat()
    except OSError:
        return damage_in(path)
    if found.st_size < _SLOW_TO_READ_BYTES and time.time_ns() - found.st_ctime_ns < _CLOCK_TICK_NS:
        return damage_in(path)
    # Whoever changes a file cannot set its ctime.
    known_by = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    place = path.absolute()
    if _CHECKED.get(place, (None, None))[0] != known_by:
        for gone in [other for other in _CHECKED if not other.exists()]:
            del _CHECKED[gone]
        _CHECKED[place] = known_by, damage_in(path)
    return _CHECKED[place][1]


def _check(path: Path, file: IO[bytes]) -> None:
    """Nothing, when every byte is as it was written.

    Raises:
        DamagedError: it is not.
    """
    with said_as_damage(path):
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise DamagedError(path, "it is empty")
        tail = _tail(file, size)
        if tail.startswith(MAGIC):
            if _digest(file, size - _HEX_DIGITS) != tail[len(MAGIC) :]:
                raise DamagedError(path, "its content does not match its checksum")
        elif tail[-_END_RECORD_BYTES:].startswith(_END_RECORD) and tail.endswith(b"\0\0"):
            _check_records(path, file)
        else:
            raise DamagedError(
                path, "its end is not that of a finished file (cut off, overwritten or added to)"
            )


def _tail(file: IO[bytes], size: int) -> bytes:
    """As many bytes of the end as the comment has."""
    file.seek(max(0, size - _COMMENT))
    return file.read(_COMMENT)


def _digest(file: IO[bytes], stop: int) -> bytes:
    """The SHA-256 of the bytes before `stop`, in hex."""
    digest, block, left = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), stop
    file.seek(0)
    while left and (count := file.readinto(block[: min(left, _BLOCK_BYTES)])):  # type: ignore[attr-defined]
        digest.update(block[:count])
        left -= count
    return digest.hexdigest().encode()


def _check_records(path: Path, file: IO[bytes]) -> None:
    """What stood in for the digest before there was one. torch.load does not look at it."""
    with zipfile.ZipFile(file) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise DamagedError(path, f"the checksum of {broken} does not match")
