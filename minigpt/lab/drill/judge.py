"""What the monitor says of a recorded training."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from minigpt.lab.drill.trace import Trace
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.diagnosis import Diagnosis
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that the monitor said."""

    step: int
    finding: str
    status: str
    interrupts: bool
    incident: int
    opened_at: int
    causes: tuple[str, ...]
    """Likeliest first."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """All that the monitor said of one training."""

    told: tuple[Told, ...]
    steps: int
    seconds: float
    """Spent in `observe`, all steps together."""

    @property
    def interruptions(self) -> list[Told]:
        return [told for told in self.told if told.interrupts]


def hear(trace: Trace, config: MonitorConfig | None = None) -> Hearing:
    """A fresh monitor sees the training step by step, resumed where the user resumed."""
    monitor = TrainingMonitor(config, facts=trace.facts)
    told: list[Told] = []
    seconds = 0.0
    for signals, kinds in _with_marks(trace):
        for kind in kinds:
            if kind == "declared":
                monitor.declare_change()
            else:
                monitor = _resumed(monitor, trace, config, with_state=kind == "resumed")
        start = time.perf_counter()
        observation = monitor.observe(signals)
        seconds += time.perf_counter() - start
        told += [_told(diagnosis) for diagnosis in observation.diagnoses]
    return Hearing(tuple(told), len(trace.signals), seconds)


def _resumed(
    monitor: TrainingMonitor, trace: Trace, config: MonitorConfig | None, *, with_state: bool
) -> TrainingMonitor:
    """The monitor of the next process; a state goes through JSON, as plain values must."""
    new = TrainingMonitor(config, facts=replace(trace.facts, resumed=True))
    if with_state:
        new.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    return new


def _with_marks(trace: Trace) -> Iterator[tuple[StepSignals, list[str]]]:
    marks: dict[int, list[str]] = {}
    for mark in trace.marks:
        marks.setdefault(mark.step, []).append(mark.kind)
    for signals in trace.signals:
        yield signals, marks.get(signals.step, [])


def _told(diagnosis: Diagnosis) -> Told:
    finding = diagnosis.finding
    return Told(
        finding.step,
        finding.name,
        finding.status,
        finding.interrupts,
        diagnosis.incident,
        finding.opened_at,
        diagnosis.causes,
    )
