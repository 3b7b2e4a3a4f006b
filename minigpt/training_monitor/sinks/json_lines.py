"""An append-only file of JSON records that survives kills and can be cut back to a step."""

import json
import os
from collections.abc import Callable, Mapping
from math import isfinite, isinf
from pathlib import Path
from typing import Any

Record = dict[str, Any]

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
    """Appends records, a line each. On opening, `revise` gives for every old one the record to keep, or None.

    A torn last line (a kill in the middle of a write) is dropped. The revision is atomic.
    """

    def __init__(self, path: Path, revise: Callable[[Record], Record | None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One that died before its rename.
        _temporary(path).unlink(missing_ok=True)
        if path.exists():
            _rewrite(path, revise)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def append(self, record: Mapping[str, Any]) -> None:
        self._file.write(_line(record))

    def flush(self) -> None:
        """Everything so far is on disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[Record]:
    """The file's whole records; a torn last line is left out."""
    return [record for line in path.read_bytes().splitlines() if (record := _parsed(line)) is not None]


def _line(record: Mapping[str, Any]) -> str:
    try:
        return _encode(record) + "\n"
    except (ValueError, TypeError):  # a number that is not finite (seldom), or a mapping that is no dict
        return _encode(legal(record)) + "\n"


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _rewrite(path: Path, revise: Callable[[Record], Record | None]) -> None:
    kept = [_line(record) for old in read_json_lines(path) if (record := revise(old)) is not None]
    text = "".join(kept).encode()
    if text == path.read_bytes():
        return
    temporary = _temporary(path)
    with temporary.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _temporary(path: Path) -> Path:
    """The same for every process, so that a revision which was killed leaves nothing that nobody knows."""
    return path.with_name(f".{path.name}.tmp")
