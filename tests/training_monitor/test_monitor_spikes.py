"""gradient_exploding and loss_spike: a firing, a quiet and a NaN series each."""

import math

import pytest

from minigpt.training_monitor.config import ExplodingConfig, MonitorConfig
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.monitor_series import Triple, findings_of, healthy


def flat(steps: int) -> list[Triple]:
    return [(step, 3.0, 0.3) for step in range(1, steps + 1)]


def told(series: list[Triple], config: MonitorConfig | None = None) -> list[tuple[str, str, int, int, bool]]:
    found = findings_of(TrainingMonitor(config), series)
    return [
        (finding.name, finding.status, finding.step, finding.length, finding.interrupts) for finding in found
    ]


def test_exploding_is_transient_when_one_step_spikes() -> None:
    series = [*flat(50), (51, 3.0, 30.0), (52, 3.0, 0.3)]
    assert told(series) == [
        ("gradient_exploding", "suspected", 51, 1, False),
        ("gradient_exploding", "transient", 52, 1, False),
    ]


def test_exploding_is_sustained_at_the_eighth_step_in_a_row_and_resolved_later() -> None:
    series = (
        flat(50) + [(step, 3.0, 30.0) for step in range(51, 61)] + [(60 + i, 3.0, 0.3) for i in range(1, 20)]
    )
    assert told(series) == [
        ("gradient_exploding", "suspected", 51, 1, False),
        ("gradient_exploding", "sustained", 58, 8, True),
        ("gradient_exploding", "resolved", 76, 10, False),
    ]


def test_exploding_takes_the_new_level_for_normal_after_readmit_steps() -> None:
    series = flat(50) + [(step, 3.0, 30.0) for step in range(51, 201)]
    statuses = [(status, step) for _, status, step, _, _ in told(series)]
    assert statuses == [("suspected", 51), ("sustained", 58), ("resolved", 90)]


def test_vanishing_is_not_sustained_when_a_long_explosion_ends() -> None:
    series = (
        flat(200)
        + [(step, 3.0, 30.0) for step in range(201, 261)]
        + [(260 + i, 3.0, 0.3) for i in range(1, 60)]
    )
    assert [entry for entry in told(series) if entry[0] == "gradient_vanishing"] == []


def test_exploding_waits_for_first_step_when_one_is_set() -> None:
    config = MonitorConfig(gradient_exploding=ExplodingConfig(first_step=70))
    series = flat(50) + [(step, 3.0, 30.0) for step in range(51, 75)]
    assert [step for *_, step, _, interrupts in told(series, config) if interrupts] == [70]


def test_exploding_is_quiet_when_the_norm_wanders_slowly() -> None:
    series = list(healthy(3000, 3, norm_at=lambda step: 0.3 * math.exp(math.sin(step / 100))))
    assert told(series) == []


def test_exploding_names_the_group_that_rose_most() -> None:
    monitor = TrainingMonitor()
    for step in range(1, 60):
        up = 100.0 if step == 59 else 1.0
        groups = {"embedding": 0.2 * math.sqrt(up), "blocks.0": 0.1 * up, "head": 0.2}
        observation = monitor.observe(StepSignals(step, 3.0, 0.3 * up, group_norms=groups))
    assert observation.findings[0].evidence["group"] == "blocks.0"
    assert observation.findings[0].evidence["group_ratio"] == pytest.approx(100)


def test_loss_spike_is_transient_when_one_batch_is_hard() -> None:
    series = [*flat(50), (51, 4.0, 0.4), (52, 3.0, 0.3)]
    assert [entry[:3] for entry in told(series)] == [
        ("loss_spike", "suspected", 51),
        ("loss_spike", "transient", 52),
    ]


def test_loss_spike_is_sustained_when_the_loss_stays_up() -> None:
    series = flat(50) + [(step, 4.0, 0.4) for step in range(51, 60)]
    assert ("loss_spike", "sustained", 58, 8, True) in told(series)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_spikes_leave_the_baseline_alone_when_a_value_is_not_finite(bad: float) -> None:
    spoilt = [(step, loss, bad if step % 3 == 0 else norm) for step, loss, norm in flat(60)]
    series = [*spoilt, (61, 3.0, 30.0), (62, 3.0, 0.3)]
    exploding = [entry[1:3] for entry in told(series) if entry[0] == "gradient_exploding"]
    assert exploding == [("suspected", 61), ("transient", 62)]
