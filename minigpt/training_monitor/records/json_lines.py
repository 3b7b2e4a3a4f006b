"""JSON lines: MiniGPT's metrics.jsonl, and anybody's with a step and a loss or gradient norm."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.records.names import LARGEST, found_columns, number, whole
from minigpt.training_monitor.records.record import Entry, Options, Source, Tally, UnreadableRecordError
from minigpt.training_monitor.signals import StepSignals

PEEK_LINES = 200
_LONGEST_LINE = 4 << 20
_OURS = frozenset(known.name for known in fields(StepSignals)) - {"parameters"}
_PARTS: dict[str, Callable[..., object]] = {"batch": BatchFacts, "look": Look}
_PART_FIELDS = {name: frozenset(known.name for known in fields(part)) for name, part in  # type: ignore[arg-type]
                _PARTS.items()}  # fmt: skip
_MAPPINGS = frozenset(("group_norms", "weight_norms", "update_ratios"))
_NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def find(path: Path) -> Path | None:
    """`path` when it is a file of JSON objects, a line each."""
    if not path.is_file() or path.suffix not in (".jsonl", ".ndjson", ".json", ".log", ".txt", ""):
        return None
    with path.open("rb") as file:
        first = file.readline(1 << 20).strip()
    try:
        return path if isinstance(json.loads(first), dict) else None
    except (ValueError, RecursionError):
        return None


def read(path: Path, options: Options) -> Source:
    """The lines of a metrics.jsonl, or of a JSON lines file of another make."""
    keys = _keys(path)
    if {"step", "loss", "grad_norm"} <= keys and not options.columns:
        return Source("MiniGPT metrics", path, partial(_our_entries, path), is_minigpt="group_norms" in keys)
    columns = found_columns(sorted(keys), options.columns, str(path))
    return Source("JSON lines", path, partial(_other_entries, path, columns))


def _keys(path: Path) -> set[str]:
    """The keys of the first lines."""
    keys: set[str] = set()
    for index, (_, record) in enumerate(_records(path, Tally())):
        keys |= record.keys()
        if index >= PEEK_LINES:
            break
    if not keys:
        raise UnreadableRecordError(
            f"{path}: no line of it is a JSON object; give a metrics.jsonl with steps"
        )
    return keys


def _records(path: Path, tally: Tally) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for line_number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            if not line.strip():
                continue
            try:
                # Of a longer line, its pieces: none is an object.
                record = None if len(line) == _LONGEST_LINE else json.loads(line)
            except (ValueError, RecursionError):  # a torn or foreign line
                record = None
            if isinstance(record, dict):
                yield line_number, record
            else:
                tally.bad(line_number)


def _our_entries(path: Path, tally: Tally) -> Iterator[Entry]:
    for line_number, record in _records(path, tally):
        entry = {
            name: value
            for name, written in record.items()
            if name in _OURS and _fits(name, value := _plain(written))
        }
        usable = type(entry.get("step")) is int and _is_number(entry.get("loss"))
        if not usable or not _is_number(entry.get("grad_norm")):
            tally.bad(line_number)
            continue
        for name in _PARTS:
            if entry.get(name) is not None:
                entry[name] = _part(name, entry[name])
        yield entry


def _fits(name: str, value: object) -> bool:
    """Whether a field can hold the value: what a foreign hand wrote is passed over."""
    if name in _MAPPINGS:
        return isinstance(value, dict) and all(map(_is_number, value.values()))
    if name == "tokens_seen" and isinstance(value, float) and not isfinite(value):
        return False
    return name in _PARTS or value is None or isinstance(value, bool) or _is_number(value)


def _is_number(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < LARGEST
    return isinstance(value, float)


def _plain(value: Any) -> Any:
    """With the non-finite numbers that JSON can only spell as words."""
    if type(value) is float:
        return value
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        if all(type(entry) is float for entry in value.values()):
            return value  # as nearly always, in records of a million steps
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _part(name: str, values: object) -> object | None:
    """BatchFacts or Look as written; fields of another version are passed over."""
    if not isinstance(values, Mapping):
        return None
    try:
        return _PARTS[name](**{key: value for key, value in values.items() if key in _PART_FIELDS[name]})
    except TypeError:  # an older version had fewer fields
        return None


def _other_entries(path: Path, columns: Mapping[str, str], tally: Tally) -> Iterator[Entry]:
    for index, (line_number, record) in enumerate(_records(path, tally), start=1):
        entry: Entry = {
            name: found for name, key in columns.items() if (found := number(record.get(key))) is not None
        }
        step = whole(record.get(columns["step"])) if "step" in columns else index
        if step is None:
            if "loss" in entry or "grad_norm" in entry:
                tally.bad(line_number)
            continue
        yield entry | {"step": step}
