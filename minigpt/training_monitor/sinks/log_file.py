"""logs/training.log: for people, grep and tail."""

import os
from collections.abc import Mapping
from pathlib import Path

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.lines import evaluation_line, step_line


class LogFileSink:
    """Appends lines, flushed one by one. History is never rewritten: a resume is a line of its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def step(self, signals: StepSignals, *, log: bool) -> None:
        if log:
            self._file.write(step_line(signals) + "\n")

    def event(self, event: Event) -> None:
        if event.interrupts or event.kind in ("resume", "save"):
            self._file.write(event.text + "\n")

    def evaluation(self, step: int, results: Mapping[str, float]) -> None:
        self._file.write(evaluation_line(step, results) + "\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        numbers = " ".join(f"{name}={value:g}" for name, value in values.items())
        self._file.write(f"Step {step}: {numbers}\n")

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
