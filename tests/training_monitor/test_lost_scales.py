"""Gradients that nobody unscaled, and weights too coarse for their updates."""

import math
from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.frozen_parameter import FrozenParameter
from minigpt.training_monitor.detectors.frozen_parameter_config import FrozenParameterConfig
from minigpt.training_monitor.detectors.gradient_scale_shift import GradientScaleShift, ScaleShiftConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    assert_resumes_exactly,
    changed,
    healthy_step,
    told,
    with_parameters,
)


def shift() -> GradientScaleShift:
    return GradientScaleShift(ScaleShiftConfig())


def frozen() -> FrozenParameter:
    return FrozenParameter(FrozenParameterConfig(), "adamw")


def interruptions(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(found.name, found.step) for found in findings if found.interrupts]


def scaled(signals: StepSignals, scale: float = 65536.0, *, factor: float = 65536.0) -> StepSignals:
    signals = changed(signals, "", grad_norms=lambda was: factor * was)
    return replace(signals, scaler_scale=scale)


def test_gradient_scale_shift_interrupts_at_once_when_gradients_are_still_scaled() -> None:
    findings = told(shift(), 40, scaled)
    assert interruptions(findings) == [("gradient_scale_shift", 8)]
    assert [found.evidence["trigger"] for found in findings if found.interrupts] == ["still scaled"]


def test_gradient_scale_shift_is_silent_when_gradients_are_unscaled_or_large_with_the_loss() -> None:
    assert told(shift(), 40, lambda signals: scaled(signals, factor=1.0)) == []
    assert interruptions(told(shift(), 40, lambda signals: replace(scaled(signals), loss=4e4))) == []
    assert told(shift(), 40, lambda signals: replace(scaled(signals), scaler_scale=None)) == []
    assert told(shift(), 40, lambda signals: replace(scaled(signals), loss=math.nan)) == []


def test_gradient_scale_shift_resumes_exactly_when_gradients_are_still_scaled() -> None:
    assert_resumes_exactly(shift, [scaled(healthy_step(step)) for step in range(1, 40)])


def looked(signals: StepSignals, moved: float, *, update: float = 1e-5, zeros: float = 0.0) -> StepSignals:
    """A step of the probes' slow beat; `update`: root mean square of each weight's change."""
    parameters = signals.parameters
    assert parameters is not None
    sizes = parameters.facts.sizes
    changes = [update * math.sqrt(size) for size in sizes] if signals.step > 1 else None
    parameters = replace(parameters, update_norms=changes)
    if signals.step % 16 == 1 and signals.step > 1:
        rows = len(sizes)
        parameters = replace(parameters, moved_fractions=[moved] * rows, zero_fractions=[zeros] * rows)
    return with_parameters(signals, parameters)


def test_frozen_parameter_interrupts_when_weights_are_too_coarse_for_their_updates() -> None:
    findings = told(frozen(), 80, lambda signals: looked(signals, 0.1))
    assert interruptions(findings) == [("frozen_parameter", 49)]
    assert (findings[-1].evidence["trigger"], findings[-1].evidence["value"]) == ("coarse", 0.1)
    assert findings[-1].status == "sustained"


@pytest.mark.parametrize(
    "change",
    [
        lambda signals: looked(signals, 0.9),
        lambda signals: looked(signals, math.nan),
        lambda signals: looked(signals, 0.1, zeros=0.9),
        lambda signals: looked(signals, 0.1, update=1e-3),
        lambda signals: replace(looked(signals, 0.1), lr=1e-3 * 0.9**signals.step),
    ],
    ids=["moving", "not a number", "no gradients", "rounded at random", "end of the schedule"],
)
def test_frozen_parameter_is_silent_when_weights_rest_for_another_reason(change: object) -> None:
    assert interruptions(told(frozen(), 80, change)) == []  # type: ignore[arg-type]


def test_frozen_parameter_ends_when_weights_move_again() -> None:
    findings = told(frozen(), 120, lambda signals: looked(signals, 0.1 if signals.step < 70 else 1.0))
    assert [found.status for found in findings] == ["suspected", "sustained", "resolved"]


def test_frozen_parameter_resumes_exactly_when_weights_are_too_coarse() -> None:
    steps = [looked(healthy_step(step), 0.1 if step < 70 else 1.0) for step in range(1, 110)]
    assert_resumes_exactly(frozen, steps)
