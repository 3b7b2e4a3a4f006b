"""metrics.jsonl: one record a step, for programs."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.json_lines import JsonLines, Record, Revise, parsed

# Where they are known: these came later than the fields that every record has.
_WHERE_KNOWN = (
    "weight_norms",
    "update_ratios",
    "scheduled_lr",
    "leftover_grad_norm",
    "optimizer_steps",
    "future_influence",
)
_FLATTENED = ("batch", "look")
_BEGINNING = b'{"step": '
_FIELDS = tuple(
    field.name
    for field in fields(StepSignals)
    if field.name not in (*_WHERE_KNOWN, *_FLATTENED, "parameters")
)


def record_of(signals: StepSignals) -> Record:
    """The record of a step. `batch` and `look` are objects of their own, without what is not known; the numbers
    of single parameters are left to the monitor: a hundred of them would make every line a page."""
    record: Record = {name: getattr(signals, name) for name in _FIELDS}
    for name in _WHERE_KNOWN:
        value = getattr(signals, name)
        if value is not None and value != {}:
            record[name] = value
    for name in _FLATTENED:
        part = getattr(signals, name)
        if part is not None:
            known = ((entry.name, getattr(part, entry.name)) for entry in fields(part))
            record[name] = {key: value for key, value in known if value is not None and value != {}}
    return record


class MetricsSink:
    """The fields of StepSignals by their names; non-finite numbers as "NaN", "Infinity", "-Infinity".

    Opened with keep_through=N (0 for a new run), records after step N and doubles are gone: a resumed run
    shows every step once.
    """

    def __init__(self, path: Path, *, keep_through: int = 0) -> None:
        self._lines = JsonLines(path, lambda: _kept_through(keep_through))

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self._lines.append(record_of(signals))

    def event(self, event: Event) -> None:
        """Events have their own file."""

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Evaluations stand in events.jsonl: here a step has one record."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Here a step has one record."""

    def flush(self) -> None:
        """Everything so far is on disk when this returns; an OSError else."""
        self._lines.flush()

    def digest(self) -> dict[str, Any]:
        """What a checkpoint notes of the file, once it is flushed."""
        return self._lines.digest()

    @property
    def trouble(self) -> OSError | None:
        return self._lines.trouble

    def take_lost(self) -> int:
        return self._lines.take_lost()

    def close(self) -> None:
        self._lines.close()


def _kept_through(keep_through: int) -> Revise:
    """Keeps the lines whose steps rise, up to `keep_through`."""
    last_step = 0

    def revise(line: bytes) -> bytes | None:
        nonlocal last_step
        step = _step_of(line)
        if step is None or not last_step < step <= keep_through:
            return None
        last_step = step
        return line

    return revise


def _step_of(line: bytes) -> int | None:
    """The step of a record's line; None where it is no whole record.

    Told by how our own lines begin and end, because a million of them are to be gone through in seconds.
    """
    if line.startswith(_BEGINNING) and line.endswith(b"}\n") and line.count(_BEGINNING) == 1:
        digits = line[len(_BEGINNING) : line.find(b",")]
        if digits.isdigit() and len(digits) < 20:
            return int(digits)
    step = (parsed(line) or {}).get("step") if line.endswith(b"\n") else None
    return step if type(step) is int else None
