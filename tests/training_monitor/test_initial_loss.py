"""initial_loss: the first loss against ln(vocab_size)."""

import math
from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.initial_loss import InitialLoss, InitialLossConfig
from minigpt.training_monitor.finding import Finding
from tests.training_monitor.invariant_series import assert_resumes_exactly, changed, healthy_step

EXPECTED = math.log(1000)


def build(vocab_size: int | None = 1000, *, resumed: bool = False) -> InitialLoss:
    return InitialLoss(InitialLossConfig(), vocab_size, resumed)


def first(loss: float, detector: InitialLoss | None = None, *, rms: float = 0.02) -> list[Finding]:
    signals = changed(replace(healthy_step(1), loss=loss), "", weight_norms=rms * 64)
    return (detector or build()).observe(signals)


def test_initial_loss_interrupts_when_it_is_far_above_that_of_knowing_nothing() -> None:
    findings = first(2 * EXPECTED)
    assert findings[-1].interrupts
    assert findings[-1].evidence["ratio"] == pytest.approx(2)


def test_initial_loss_is_a_quiet_event_when_it_is_far_below() -> None:
    findings = first(0.3 * EXPECTED)
    assert [(found.status, found.interrupts) for found in findings] == [("suspected", False)]


def test_initial_loss_interrupts_when_weights_are_far_too_small() -> None:
    findings = first(EXPECTED * (1 + 1e-5), rms=1e-5)
    assert findings[-1].interrupts
    assert findings[-1].evidence["weight_rms"] == pytest.approx(1e-5)


def test_initial_loss_interrupts_when_weights_are_far_too_large_and_a_norm_hides_it() -> None:
    findings = first(1.05 * EXPECTED, rms=1.0)
    assert findings[-1].interrupts
    assert findings[-1].evidence["gain"] == pytest.approx(8)
    assert first(1.05 * EXPECTED, rms=0.125) == []  # a gain of 1: Xavier's
    assert first(0.7 * EXPECTED, rms=1.0) == []  # somebody has trained it
    assert (
        first(1.05 * EXPECTED, InitialLoss(InitialLossConfig(max_weight_gain=None), 1000, False), rms=1.0)
        == []
    )


def test_initial_loss_is_silent_when_it_is_about_right_or_an_output_starts_at_zero() -> None:
    assert first(1.1 * EXPECTED) == []
    assert first(EXPECTED) == []


@pytest.mark.parametrize("detector", [build(None), build(resumed=True)])
def test_initial_loss_is_silent_when_nothing_is_known_or_the_training_goes_on(detector: InitialLoss) -> None:
    assert first(50.0, detector) == []


def test_initial_loss_waits_for_the_first_finite_one_but_not_for_ever() -> None:
    detector = build()
    assert detector.observe(replace(healthy_step(1), loss=math.nan)) == []
    assert detector.observe(replace(healthy_step(2), loss=50.0))[-1].interrupts
    assert build().observe(replace(healthy_step(10), loss=50.0)) == []


def test_initial_loss_resumes_exactly() -> None:
    steps = [replace(healthy_step(step), loss=20.0) for step in range(1, 12)]
    assert_resumes_exactly(build, steps)
