"""metrics.jsonl: one record a step, for programs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.json_lines import JsonLines, Record


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
        self._lines.append(asdict(signals))

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
