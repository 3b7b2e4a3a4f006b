"""An append-only file of JSON records that survives kills and full disks, and can be cut back to a step."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import isfinite, isinf
from pathlib import Path
from typing import Any, BinaryIO

from minigpt.training_monitor.sinks.append_file import AppendFile, sync_folder

Record = dict[str, Any]
Revise = Callable[[bytes], bytes | None]
"""What an old line is to become; None: it goes."""
LONGEST_LINE_BYTES = 16 << 20

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def legal(value: object) -> object:
    """The value with every non-finite float as "NaN", "Infinity" or "-Infinity": JSON has no other way, and
    float() of these strings gives the number back, which null would not."""
    if isinstance(value, float) and not isfinite(value):
        return ("Infinity" if value > 0 else "-Infinity") if isinf(value) else "NaN"
    if isinstance(value, Mapping):
        return {key: legal(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [legal(entry) for entry in value]
    return value


class JsonLines:
    """Appends records, a line each. On opening, a `revise` of its own goes over the old lines in their order.

    A torn last line (a kill in the middle of a write) is dropped. A kill while the old lines are revised leaves the
    file as it was or as it is to be. Nothing is ever read whole: a record of a million steps takes no memory.
    """

    def __init__(self, path: Path, revise: Callable[[], Revise]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _temporary(path).unlink(missing_ok=True)
        size, digest = _revised(path, revise) if path.exists() else (0, hashlib.sha256())
        # Opened now, not at the first record: a run whose record cannot be written does not begin.
        path.open("ab").close()
        # A run folder that was deleted meanwhile is not for a record to make again: it waits for it.
        self._file = AppendFile(lambda: path, start=size, digest=digest, makes_folder=False)

    def append(self, record: Mapping[str, Any]) -> None:
        """Takes the record in, and writes it now or, where the disk refuses, later."""
        self._file.append(line_of(record))

    def flush(self) -> None:
        """Everything so far is on disk when this returns; an OSError else."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def trouble(self) -> OSError | None:
        """Why the disk refuses at present; None: it does not."""
        return self._file.trouble

    def take_lost(self) -> int:
        """Records that the disk refused for so long that memory could not hold them, since this was last asked."""
        return self._file.take_lost()

    def digest(self) -> dict[str, Any]:
        """{"bytes": n, "sha256": hex} of the file's first n bytes, which the disk has for certain."""
        size, sha256 = self._file.confirmed
        return {"bytes": size, "sha256": sha256}


def read_json_lines(path: Path) -> Iterator[Record]:
    """The file's whole records, one at a time; a torn line is left out."""
    with path.open("rb") as file:
        for line in _lines(file):
            record = parsed(line)
            if record is not None:
                yield record


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as the line that the file holds."""
    try:
        text = _encode(record)
    except (ValueError, TypeError):  # a number that is not finite (seldom), or a mapping that is no dict
        text = _encode(legal(record))
    # Half a surrogate, from a file's name that is no UTF-8: its escape is what JSON would write.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def parsed(line: bytes) -> Record | None:
    """The record of a line; None where it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.0.tmp")


def _revised(path: Path, revise: Callable[[], Revise]) -> tuple[int, "hashlib._Hash"]:
    """Revise the file's lines; its length then, and the SHA-256 of what it holds.

    Nearly always only its end goes, and cutting a file is one step for the system. Else a new file takes its place.
    """
    size, digest, of_line = 0, hashlib.sha256(), revise()
    with path.open("rb") as file:
        lines = _lines(file)
        for line in lines:
            new = of_line(line)
            if new != line:
                break
            digest.update(line)
            size += len(line)
        else:
            return size, digest
        only_cut = new is None and all(of_line(line) is None for line in lines)
    if not only_cut:
        return _rewritten(path, revise())
    with path.open("rb+") as file:
        file.truncate(size)
        os.fsync(file.fileno())
    return size, digest


def _rewritten(path: Path, of_line: Revise) -> tuple[int, "hashlib._Hash"]:
    size, digest, temporary = 0, hashlib.sha256(), _temporary(path)
    with path.open("rb") as old, temporary.open("wb") as file:
        for line in _lines(old):
            new = of_line(line)
            if new is not None:
                digest.update(new)
                size += file.write(new)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return size, digest


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends; one that is longer than any record comes in pieces, none of which is a record."""
    return iter(partial(file.readline, LONGEST_LINE_BYTES), b"")
