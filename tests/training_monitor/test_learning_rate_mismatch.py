"""learning_rate_mismatch: the rate against its schedule, and leaps without one."""

import math
from collections.abc import Callable

import pytest

from minigpt.training_monitor.detectors.learning_rate import LearningRateConfig, LearningRateMismatch
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import assert_resumes_exactly, heard, summary


def build() -> LearningRateMismatch:
    return LearningRateMismatch(LearningRateConfig())


def scheduled(step: int) -> float:
    """Ten steps of warm-up, then a cosine."""
    return 1e-3 * min(1.0, step / 10) * (1 + math.cos(math.pi * min(step, 200) / 200)) / 2


def series(
    rate: Callable[[int], float], plan: Callable[[int], float | None] = scheduled
) -> list[StepSignals]:
    return [StepSignals(step, 3.0, 1.0, lr=rate(step), scheduled_lr=plan(step)) for step in range(1, 200)]


def findings_of(signals: list[StepSignals]) -> list[Finding]:
    return heard(build(), signals)


def test_mismatch_interrupts_at_the_third_step_when_the_rate_is_a_third_of_plan() -> None:
    findings = findings_of(series(lambda step: scheduled(step) * (1 if step < 50 else 1 / 3)))
    assert summary(findings) == [
        ("learning_rate_mismatch", "suspected", 50, False),
        ("learning_rate_mismatch", "sustained", 52, True),
    ]
    assert findings[-1].evidence["ratio"] == pytest.approx(1 / 3)


def test_mismatch_interrupts_at_once_when_the_rate_leaps_and_is_transient_when_it_was_brief() -> None:
    brief = findings_of(series(lambda step: scheduled(step) * (50 if 60 <= step < 64 else 1)))
    assert summary(brief) == [
        ("learning_rate_mismatch", "suspected", 60, True),
        ("learning_rate_mismatch", "transient", 64, False),
    ]
    lasting = findings_of(series(lambda step: scheduled(step) * (50 if step >= 60 else 1)))
    assert [(found.status, found.step) for found in lasting] == [("suspected", 60), ("sustained", 67)]


def test_mismatch_interrupts_when_the_rate_is_constant_in_spite_of_a_schedule() -> None:
    assert any(found.interrupts for found in findings_of(series(lambda step: 1e-3)))


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_mismatch_is_silent_when_steps_are_counted_from_elsewhere(shift: int) -> None:
    findings = findings_of(series(lambda step: scheduled(step + shift)))
    assert not any(found.interrupts for found in findings)


def test_mismatch_is_silent_when_rounding_differs_at_the_end_of_a_schedule() -> None:
    assert findings_of(series(lambda step: scheduled(step) + 5e-10)) == []


def test_leap_is_a_quiet_event_when_no_schedule_is_known() -> None:
    findings = findings_of(series(lambda step: 1e-4 if step < 100 else 1e-3, lambda step: None))
    assert summary(findings) == [
        ("learning_rate_mismatch", "suspected", 100, False),
        ("learning_rate_mismatch", "transient", 101, False),
    ]


def test_mismatch_is_silent_when_rates_are_not_finite() -> None:
    assert findings_of(series(lambda step: math.nan)) == []


def test_mismatch_resumes_exactly() -> None:
    assert_resumes_exactly(build, series(lambda step: scheduled(step) * (3 if 50 <= step < 58 else 1)))


def test_mismatch_interrupts_when_an_unplanned_rate_falls_by_a_hundred_and_stays() -> None:
    found = findings_of(series(lambda step: 1e-3 if step < 60 else 1e-5, plan=lambda step: None))
    assert summary(found) == [
        ("learning_rate_mismatch", "suspected", 60, False),
        ("learning_rate_mismatch", "sustained", 67, True),
    ]


@pytest.mark.parametrize(
    "rate",
    [
        lambda step: 1e-3 if step < 60 else 1e-4,
        lambda step: 1e-1 if 60 <= step < 63 else 1e-3,
        lambda step: 1e-3 * 0.5**step,
    ],
    ids=["a step of ten", "back from a brief leap", "a fast decay"],
)
def test_mismatch_never_interrupts_without_a_plan_when_the_rate(rate: Callable[[int], float]) -> None:
    assert not any(found.interrupts for found in findings_of(series(rate, plan=lambda step: None)))
