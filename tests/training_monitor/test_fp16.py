"""overflow_streak, scale_collapse and gradient_underflow."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minigpt.training_monitor.detectors.fp16 import Fp16
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.overflow import Fp16Config
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    NAMES,
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    healthy_step,
    heard,
    summary,
)


def build(precision: str | None = "fp16") -> Fp16:
    return Fp16(Fp16Config(), precision)


def good(step: int, scale: float = 65536.0) -> StepSignals:
    return replace(healthy_step(step), scaler_scale=scale)


def overflow(step: int, scale: float) -> StepSignals:
    signals = replace(healthy_step(step), grad_norm=math.inf, scaler_scale=scale)
    return replace(signals, scaler_overflow=True, update_skipped=True)


def told(signals: list[StepSignals], detector: Fp16 | None = None) -> list[Finding]:
    return heard(detector or build(), signals)


def zeros(
    share: Callable[[str, int], float], steps: int = 60, every: int = 1, **fields: Any
) -> list[StepSignals]:
    """Steps whose gradients have this share of exact zeros, by name and step, looked at every so often."""
    found = []
    for step in range(1, steps + 1):
        signals = replace(healthy_step(step), **fields)
        assert signals.parameters is not None
        if step % every == 0:
            row = [share(name, step) for name in NAMES]
            signals = replace(signals, parameters=replace(signals.parameters, zero_fractions=row))
        found.append(signals)
    return found


def test_overflow_streak_interrupts_at_the_eighth_in_a_row_after_the_first_success() -> None:
    signals = [good(1), *(overflow(step, 2.0 ** (17 - step)) for step in range(2, 12))]
    assert summary(told(signals)) == [
        ("overflow_streak", "suspected", 9, False),
        ("overflow_streak", "sustained", 9, True),
    ]


def test_overflow_streak_interrupts_when_ten_of_fifty_overflow() -> None:
    signals = [overflow(step, 2.0**14 + step) if step % 4 == 0 else good(step) for step in range(1, 60)]
    assert told(signals)[0].step == 40


def test_overflow_streak_interrupts_at_the_fourth_when_the_scale_never_moves() -> None:
    findings = told([good(1), *(overflow(step, 65536.0) for step in range(2, 9))])
    assert (findings[-1].step, findings[-1].evidence["trigger"]) == (5, "at one scale")


def test_overflow_streak_is_silent_when_the_scaler_calibrates() -> None:
    signals = [overflow(step, 2.0 ** (26 - step)) for step in range(1, 24)]
    assert told([*signals, *(good(step, 4.0) for step in range(24, 60))]) == []


def test_overflow_streak_is_silent_when_the_scale_grows_too_far_now_and_then() -> None:
    assert told([overflow(step, 65536.0) if step % 20 == 0 else good(step) for step in range(1, 2000)]) == []


def test_overflow_streak_is_silent_when_the_loss_is_nan() -> None:
    signals = [good(1), *(replace(overflow(step, 65536.0), loss=math.nan) for step in range(2, 20))]
    assert not any(found.name == "overflow_streak" for found in told(signals))


def test_scale_collapse_interrupts_when_the_scale_is_below_one() -> None:
    findings = told([good(step, 2.0 if step < 20 else 0.5) for step in range(1, 40)])
    assert summary(findings) == [
        ("scale_collapse", "suspected", 20, False),
        ("scale_collapse", "sustained", 20, True),
    ]


def test_gradient_underflow_interrupts_when_most_gradients_turn_to_zeros() -> None:
    def flushed(name: str, step: int) -> float:
        return 0.95 if name.startswith("embedding") or step >= 30 else 0.0

    assert summary(told(zeros(flushed))) == [
        ("gradient_underflow", "suspected", 30, False),
        ("gradient_underflow", "sustained", 31, True),
    ]
    (_, sustained) = told(zeros(flushed, every=16))
    assert (sustained.step, sustained.interrupts) == (32, True)


def test_gradient_underflow_interrupts_from_the_start_in_fp16_only() -> None:
    steps = zeros(lambda name, step: 0.8)
    assert told(steps)[-1].interrupts
    assert told(steps, build("bf16")) == []


def test_gradient_underflow_is_silent_when_one_block_or_everything_is_zero() -> None:
    block = zeros(lambda name, step: 1.0 if name.startswith("blocks.1") and step > 30 else 0.0)
    assert told(block) == []
    masked = zeros(lambda name, step: 1.0 if step > 30 else 0.0)
    masked = [replace(each, grad_norm=0.0) if each.step > 30 else each for each in masked]
    assert told(masked, build("off")) == []


def test_fp16_resumes_exactly() -> None:
    steps = [good(1), *(overflow(step, 2.0 ** (5 - step)) for step in range(2, 12))]
    steps += [replace(each, scaler_scale=8.0) for each in zeros(lambda name, step: step / 60)[11:]]
    assert_resumes_exactly(build, steps)
    assert_silent_when_not_finite(build)


def small(signals: StepSignals) -> StepSignals:
    """Gradients so small that fp16 flushes them: 4096 elements of 1e-6."""
    return changed(signals, "", grad_norms=64e-6)


def test_gradient_underflow_interrupts_outside_fp16_when_small_gradients_turn_to_zeros() -> None:
    steps = list(map(small, zeros(lambda name, step: 0.9 if step >= 30 else 0.1)))
    assert summary(told(steps, build("bf16"))) == [
        ("gradient_underflow", "suspected", 30, False),
        ("gradient_underflow", "sustained", 31, True),
    ]


def test_gradient_underflow_is_silent_outside_fp16_when_gradients_are_large() -> None:
    """Their zeros are those of units that do not fire."""
    steps = zeros(lambda name, step: 0.9 if step >= 30 else 0.1)
    assert told(steps, build("bf16")) == []
    assert told(steps, build("fp16"))[-1].interrupts


def test_gradient_underflow_is_silent_outside_fp16_when_the_share_was_always_high_or_rises_slowly() -> None:
    always = zeros(lambda name, step: 0.45 if step < 20 else 0.7)
    assert told(list(map(small, always)), build("bf16")) == []
    slowly = zeros(lambda name, step: min(0.015 * step, 0.9))
    assert told(list(map(small, slowly)), build("bf16")) == []


def test_gradient_underflow_takes_a_scaler_for_fp16() -> None:
    steps = zeros(lambda name, step: 0.8, scaler_scale=1.0)
    found = told(steps, build(None))
    assert found[-1].interrupts
    assert found[-1].evidence["scaler_scale"] == 1.0
    assert "scaler_scale" not in told(zeros(lambda name, step: 0.8))[-1].evidence


def test_gradient_underflow_needs_half_of_the_matrices_and_leaves_vectors_out() -> None:
    def flushed(*parts: str) -> list[StepSignals]:
        return zeros(lambda name, step: 0.9 * any(part in name for part in parts))

    assert told(flushed("query", "norm")) == []  # 7 of 12 parameters, 3 of 8 matrices
    assert told(flushed("query", "head"))[-1].interrupts


def test_gradient_underflow_ends_after_two_looks_in_a_row_or_one_of_distant_ones() -> None:
    def brief(name: str, step: int) -> float:
        return 0.9 if 30 <= step < 40 else 0.0

    assert [(f.status, f.step) for f in told(zeros(brief))][-1] == ("resolved", 41)
    assert [(f.status, f.step) for f in told(zeros(brief, every=16))] == [
        ("suspected", 32),
        ("sustained", 32),
        ("resolved", 48),
    ]
