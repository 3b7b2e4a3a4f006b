"""weight_jump: weights that somebody else changed."""

from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.weight_jump import WeightJump, WeightJumpConfig
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


def build() -> WeightJump:
    return WeightJump(WeightJumpConfig())


def at(step: int, prefix: str, updates: float, growth: float = 0.0) -> Change:
    """At one step an update `updates` times itself, from when on the weights are larger by `growth`."""

    def change(signals: StepSignals) -> StepSignals:
        if signals.step >= step:
            signals = changed(signals, prefix, weight_norms=lambda norm: norm + growth)
        if signals.step == step:
            signals = changed(signals, prefix, update_norms=lambda norm: norm * updates)
        return signals

    return change


def test_weight_jump_interrupts_when_a_norm_changes_by_more_than_its_update() -> None:
    findings = told(build(), 60, at(40, "blocks.1.up", 1.0, growth=0.5))
    assert [(found.status, found.step) for found in findings] == [
        ("suspected", 40),
        ("sustained", 40),
        ("resolved", 48),
    ]
    assert findings[1].interrupts
    assert findings[1].evidence["parameter"] == "blocks.1.up.weight"


def test_weight_jump_interrupts_one_step_later_when_only_the_update_leaps() -> None:
    findings = told(build(), 60, at(40, "blocks.1.up", 60.0))
    assert [(found.status, found.step) for found in findings][:2] == [("suspected", 41), ("sustained", 41)]
    assert findings[1].evidence["ratio"] == pytest.approx(60, rel=0.3)


def test_weight_jump_counts_all_when_other_weights_are_loaded() -> None:
    findings = told(build(), 60, at(40, "", 100.0))
    assert findings[1].interrupts
    assert findings[1].evidence["count"] == 12


def test_weight_jump_interrupts_when_something_multiplies_a_layer_at_every_step() -> None:
    def growing(signals: StepSignals) -> StepSignals:
        steps = signals.step - 59
        signals = changed(signals, "blocks.1.query", weight_norms=lambda norm: norm * 1.03**steps)
        return changed(signals, "blocks.1.query", update_norms=8.04 * 1.03 ** (steps - 1) * 0.0305)

    findings = told(build(), 80, growing, since=60)
    assert (findings[1].step, findings[1].interrupts) == (63, True)


def test_weight_jump_is_silent_when_weight_decay_shrinks_everything() -> None:
    def shrinking(signals: StepSignals) -> StepSignals:
        steps = signals.step - 59
        signals = changed(signals, "", weight_norms=lambda norm: norm * 0.97**steps)
        return changed(signals, "", update_norms=8.04 * 0.97 ** (steps - 1) * 0.0305)

    assert told(build(), 80, shrinking, since=60) == []


def test_weight_jump_is_silent_when_the_rate_or_the_gradient_explains_the_update() -> None:
    def rate(signals: StepSignals) -> StepSignals:
        signals = changed(signals, "", update_norms=lambda norm: norm * (50 if signals.step == 41 else 1))
        return replace(signals, lr=5e-2 if signals.step == 40 else 1e-3)

    def gradient(signals: StepSignals) -> StepSignals:
        signals = changed(
            signals, "blocks.1", grad_norms=lambda norm: norm * (60 if signals.step == 40 else 1)
        )
        return changed(
            signals, "blocks.1", update_norms=lambda norm: norm * (50 if signals.step == 41 else 1)
        )

    assert told(build(), 60, rate) == []
    assert told(build(), 60, gradient) == []


def test_weight_jump_is_silent_when_a_high_rate_of_one_layer_stays() -> None:
    def hot(signals: StepSignals) -> StepSignals:
        return changed(signals, "blocks.1.query", update_norms=lambda norm: norm * 30)

    assert told(build(), 60, hot, since=40) == []


def test_weight_jump_is_silent_when_norms_were_measured_too_seldom() -> None:
    detector = build()
    change = at(45, "blocks.1", 1.0, growth=2.0)
    assert [
        found for step in range(10, 200, 10) for found in detector.observe(change(healthy_step(step)))
    ] == []


def test_weight_jump_resumes_exactly() -> None:
    change = at(40, "blocks.1.up", 60.0, growth=0.5)
    assert_resumes_exactly(build, [change(healthy_step(step)) for step in range(1, 70)])
    assert_silent_when_not_finite(build)


def test_weight_jump_interrupts_when_nearly_all_updates_leap_by_less_in_one_step() -> None:
    found = told(
        build(),
        40,
        lambda signals: changed(signals, "", update_norms=lambda was: 9 * was),
        since=20,
        until=20,
    )
    assert summary(found)[:2] == [
        ("weight_jump", "suspected", 21, False),
        ("weight_jump", "sustained", 21, True),
    ]
