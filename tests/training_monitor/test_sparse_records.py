"""A record of every tenth, or every five-hundredth, step: the rules count values as well as steps."""

import math
import random
from collections.abc import Iterable

import pytest

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.records.names import found_columns
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.monitor_series import Triple, healthy


def _findings(series: Iterable[Triple]) -> list[Finding]:
    monitor = TrainingMonitor(facts=RunFacts())
    return [
        finding
        for step, loss, norm in series
        for finding in monitor.observe(StepSignals(step, loss, norm, lr=3e-4)).findings
    ]


def _thinned(every: int, seed: int) -> list[Triple]:
    series = healthy(400, seed, norm_noise=0.35, loss_noise=0.06)
    return [(every * step, loss, norm) for step, loss, norm in series]


@pytest.mark.parametrize("every", [2, 5, 10, 20, 50, 500])
def test_sparse_record_does_not_interrupt_when_a_noisy_run_learns(every: int) -> None:
    for seed in range(4):
        assert [f for f in _findings(_thinned(every, seed)) if f.interrupts] == []


@pytest.mark.parametrize("every", [5, 10, 50])
def test_gradient_vanishing_is_told_when_a_sparse_record_declines_after_a_healthy_start(every: int) -> None:
    start = _thinned(every, seed=1)[:200]
    step, _, norm = start[-1]
    chance = random.Random(0)
    rest = [(step + every * i, 7.2 * chance.lognormvariate(0, 0.01), norm * 0.3**i) for i in range(1, 16)]
    told = [f for f in _findings(start + rest) if f.interrupts]
    assert [f.name for f in told] == ["gradient_vanishing"]
    assert told[0].step > step


def test_loss_divergence_is_told_when_a_sparse_record_climbs() -> None:
    start = _thinned(10, seed=2)[:150]
    step, loss, norm = start[-1]
    rest = [(step + 10 * i, loss * 1.06**i, norm) for i in range(1, 16)]
    told = [f for f in _findings(start + rest) if f.interrupts]
    assert "loss_divergence" in [f.name for f in told]
    assert all(f.step > step for f in told)


@pytest.mark.parametrize(("scale", "told"), [(2.0**16, False), (None, True)])
def test_optimizer_state_lost_knows_calibration_when_the_first_record_is_at_step_ten(
    scale: float | None, told: bool
) -> None:
    monitor = TrainingMonitor(facts=RunFacts())
    first = StepSignals(10, 5.0, 1.0, lr=1e-3, scaler_scale=scale, optimizer_steps=0.0)
    names = [finding.name for finding in monitor.observe(first).findings]
    assert ("optimizer_state_lost" in names) == told


def test_no_update_stays_silent_when_only_the_first_record_of_a_warm_up_has_rate_zero() -> None:
    monitor = TrainingMonitor(facts=RunFacts(warmup_steps=100))
    rates = [0.0, 1e-4, 2e-4, 0.0, 2e-4]
    for step, lr in zip((1, 10, 20, 30, 40), rates, strict=True):
        found = monitor.observe(StepSignals(step, 5.0 * math.exp(-step / 400), 1.0, lr=lr)).findings
        assert "no_update" not in [finding.name for finding in found]


def test_columns_are_found_when_a_chart_is_exported_from_wandb() -> None:
    run = ["Step", "calm-sun-1 - train/loss", "calm-sun-1 - train/loss__MIN", "calm-sun-1 - train/loss__MAX"]
    assert found_columns(run, {}, "chart.csv") == {"step": "Step", "loss": "calm-sun-1 - train/loss"}
