"""leftover_gradient: a forgotten zero_grad."""

from dataclasses import replace

from minigpt.training_monitor.detectors.leftover_gradient import LeftoverGradient, LeftoverGradientConfig
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    facts_with,
    healthy_step,
    summary,
    told,
    with_parameters,
)


def build() -> LeftoverGradient:
    return LeftoverGradient(LeftoverGradientConfig())


def left(signals: StepSignals) -> StepSignals:
    return replace(signals, leftover_grad_norm=0.4)


def test_leftover_gradient_interrupts_at_the_second_step_when_zero_grad_is_forgotten() -> None:
    assert summary(told(build(), 30, left, since=20)) == [
        ("leftover_gradient", "suspected", 20, False),
        ("leftover_gradient", "sustained", 21, True),
    ]


def test_leftover_gradient_is_transient_when_it_happened_once() -> None:
    assert [found.status for found in told(build(), 30, left, since=20, until=20)] == [
        "suspected",
        "transient",
    ]


def test_leftover_gradient_is_silent_when_nothing_or_next_to_nothing_is_left() -> None:
    assert told(build(), 30) == []
    assert told(build(), 30, lambda signals: replace(signals, leftover_grad_norm=None)) == []
    assert told(build(), 30, lambda signals: replace(signals, leftover_grad_norm=1e-5)) == []


def test_leftover_gradient_is_silent_when_it_may_be_that_of_parameters_in_no_optimizer() -> None:
    def partial(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        facts = facts_with(left_out=("embedding",))
        return left(with_parameters(signals, replace(signals.parameters, facts=facts)))

    assert told(build(), 30, partial) == []


def test_leftover_gradient_resumes_exactly() -> None:
    steps = [*map(healthy_step, range(1, 10)), *(left(healthy_step(step)) for step in range(10, 16))]
    assert_resumes_exactly(build, [*steps, *map(healthy_step, range(16, 24))])
    assert_silent_when_not_finite(build)


def test_leftover_gradient_interrupts_when_every_other_zero_grad_is_forgotten() -> None:
    found = told(build(), 40, lambda signals: left(signals) if signals.step % 2 else signals, since=20)
    interrupting = [finding for finding in found if finding.interrupts]
    assert summary(interrupting) == [("leftover_gradient", "sustained", 27, True)]
    assert found[-1] is interrupting[0]


def test_leftover_gradient_is_quiet_when_gradients_wait_for_their_update() -> None:
    def accumulated(signals: StepSignals) -> StepSignals:
        if signals.step % 2:
            return signals
        return replace(left(signals), update_ratios=dict.fromkeys(signals.update_ratios, 0.0))

    assert not any(finding.interrupts for finding in told(build(), 60, accumulated))
