"""events.jsonl: one record an anomaly, action, save, resume or evaluation."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.json_lines import JsonLines, Record


class EventsSink:
    """The run's history. Opened with keep_through=N, events of later, now discarded steps get
    "superseded": true instead of vanishing: why a run was taken back is worth knowing."""

    def __init__(self, path: Path, *, keep_through: int = 0) -> None:
        def revise(record: Record) -> Record:
            step = record.get("step")
            if isinstance(step, int) and step > keep_through:
                record["superseded"] = True
            return record

        self._lines = JsonLines(path, revise)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        """Steps stand in metrics.jsonl."""

    def event(self, event: Event) -> None:
        self._lines.append({"time": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(event)})

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        text = " ".join(f"{name}={value:.4f}" for name, value in results.items())
        self.event(Event(step, "evaluation", "evaluation", text, data=dict(results)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers are for TensorBoard and the log."""

    def flush(self) -> None:
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()
