"""metrics.jsonl: one record a step, for programs."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.json_lines import JsonLines, Record

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
        last_step = 0

        def revise(record: Record) -> Record | None:
            nonlocal last_step
            step = record.get("step")
            if not isinstance(step, int) or not last_step < step <= keep_through:
                return None
            last_step = step
            return record

        self._lines = JsonLines(path, revise)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        self._lines.append(record_of(signals))

    def event(self, event: Event) -> None:
        """Events have their own file."""

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        """Evaluations stand in events.jsonl: here a step has one record."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Here a step has one record."""

    def flush(self) -> None:
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()
