"""What the monitor finds follows from the signals: read one step late, as on CUDA, they are the very same."""

from dataclasses import replace
from functools import partial

import pytest

from minigpt.lab.drill.controls.loops import Frozen, Resumed
from minigpt.lab.drill.judge import hear
from minigpt.lab.drill.record import Job, record
from minigpt.lab.drill.reduced import SMALL, reduced_scenarios
from minigpt.lab.drill.scenario import Scenario
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.trace import Trace
from minigpt.training_monitor.monitor import TrainingMonitor

FAULTS = ("nan_loss_once", "zero_grad_forgotten", "adam_state_lost", "lr_jump")
SHORT = Setting(model=SMALL, steps=100)


def scenarios() -> list[Scenario]:
    """A few faults, resuming with and without the monitor's state, and a change that the user declares."""
    faults = [each for each in reduced_scenarios() if each.name.removeprefix("reduced-") in FAULTS]
    shorter = [replace(fault, setting=replace(fault.setting, steps=SHORT.steps)) for fault in faults]
    return [
        *shorter,
        Resumed(name="resumed", setting=SHORT, at=(40, 70)),
        Resumed(name="resumed_without_state", setting=SHORT, at=(40,), with_state=False),
        Frozen(name="declared", prefix="blocks.0.", freed_at=60, declared=True, setting=SHORT),
    ]


def without_the_clock(trace: Trace) -> Trace:
    clock = {"seconds": 0.0, "tokens_per_second": 0.0, "memory_bytes": None}
    return replace(trace, signals=tuple(replace(signals, **clock) for signals in trace.signals))  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_findings_are_at_the_same_steps_when_signals_are_read_late(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = without_the_clock(record(Job(scenario, 0)))
    monkeypatch.setattr(TrainingMonitor, "for_model", partial(TrainingMonitor.for_model, late=True))
    late = without_the_clock(record(Job(scenario, 0)))
    assert len(late.signals) == SHORT.steps
    assert repr(late.signals) == repr(at_once.signals)  # NaN equals NaN
    assert late.marks == at_once.marks
    assert hear(late).told == hear(at_once).told
