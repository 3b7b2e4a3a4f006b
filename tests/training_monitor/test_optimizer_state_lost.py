"""optimizer_state_lost: by the optimizer's own count, and by the leap of fresh moments."""

from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.optimizer_state import OptimizerStateConfig, OptimizerStateLost
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    Change,
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    healthy_step,
    summary,
    told,
)


def build() -> OptimizerStateLost:
    return OptimizerStateLost(OptimizerStateConfig())


def uncounted(signals: StepSignals) -> StepSignals:
    return replace(signals, optimizer_steps=None)


def leap(factor: float, since: int, settles_in: int) -> Change:
    def change(signals: StepSignals) -> StepSignals:
        left = max(0.0, 1 - (signals.step - since) / settles_in) if signals.step >= since else 0.0
        moved = changed(signals, "", update_norms=lambda norm: norm * factor**left)
        return uncounted(moved)

    return change


def test_lost_state_interrupts_at_once_when_the_count_falls() -> None:
    def reset(signals: StepSignals) -> StepSignals:
        return replace(signals, optimizer_steps=float(signals.step - 20))

    findings = told(build(), 60, reset, since=20)
    assert summary(findings)[:2] == [
        ("optimizer_state_lost", "suspected", 20, False),
        ("optimizer_state_lost", "sustained", 20, True),
    ]
    assert [found.status for found in findings] == ["suspected", "sustained", "resolved"]


def test_lost_state_interrupts_when_the_count_disappears() -> None:
    assert told(build(), 40, uncounted, since=20)[1].interrupts


def test_lost_state_interrupts_when_a_resume_brings_a_fresh_optimizer() -> None:
    detector = build()
    findings = detector.observe(replace(healthy_step(500), optimizer_steps=0.0))
    assert findings[-1].interrupts
    assert findings[-1].evidence["trigger"] == "resume"


def test_lost_state_is_silent_when_updates_were_skipped_or_the_optimizer_counts_nothing() -> None:
    def skipping(signals: StepSignals) -> StepSignals:
        return replace(signals, optimizer_steps=float((signals.step - 1) * 3 // 4))

    assert told(build(), 60, skipping) == []
    assert told(build(), 60, uncounted) == []
    assert build().observe(replace(healthy_step(500), optimizer_steps=499.0)) == []


@pytest.mark.parametrize("factor", [4.0, 0.15])
def test_lost_state_is_told_by_all_updates_leaping_and_settling_when_nothing_is_counted(
    factor: float,
) -> None:
    findings = told(build(), 80, leap(factor, 40, 8))
    assert findings[1].interrupts
    assert 42 <= findings[1].step <= 46
    assert findings[1].evidence["trigger"] == "updates"


def test_lost_state_is_silent_when_updates_leap_for_another_reason() -> None:
    def rate(signals: StepSignals) -> StepSignals:
        moved = changed(signals, "", update_norms=lambda norm: norm * 4) if signals.step > 40 else signals
        return replace(uncounted(moved), lr=4e-3 if signals.step >= 40 else 1e-3)

    def one_layer(signals: StepSignals) -> StepSignals:
        leaps = 40 <= signals.step < 44
        moved = changed(signals, "blocks.1", update_norms=lambda norm: norm * 5) if leaps else signals
        return uncounted(moved)

    assert told(build(), 80, leap(6.0, 40, 10**6)) == []
    assert told(build(), 80, rate) == []
    assert told(build(), 80, one_layer) == []


def test_lost_state_resumes_exactly() -> None:
    change = leap(4.0, 40, 8)
    assert_resumes_exactly(build, [change(healthy_step(step)) for step in range(1, 80)])
    assert_silent_when_not_finite(build)
