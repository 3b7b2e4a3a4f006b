"""One matrix that is not as its like: its gradient, its updates, its first weights."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.dead_layer import DeadLayer, DeadLayerConfig
from minigpt.training_monitor.detectors.initial_loss import InitialLoss, InitialLossConfig
from minigpt.training_monitor.detectors.siblings import odd_ones
from minigpt.training_monitor.detectors.update_ratio import UpdateRatio
from minigpt.training_monitor.detectors.update_ratio_config import UpdateRatioConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    healthy_step,
    told,
)

ONE = "blocks.1.up"
SMALL_RATE = 0.03
"""Of the usual update that healthy_step makes: .001 of the weights."""


def updates() -> UpdateRatio:
    return UpdateRatio(UpdateRatioConfig(), RunFacts(weight_decay=0.0))


def shares() -> DeadLayer:
    return DeadLayer(DeadLayerConfig())


def interruptions(findings: list[Finding]) -> list[tuple[str, int]]:
    return [(found.name, found.step) for found in findings if found.interrupts]


def times(factor: float, part: str = ONE, **also: float) -> Callable[[StepSignals], StepSignals]:
    """A step whose updates of one part are `factor` times themselves; gradients=: these too."""

    def change(signals: StepSignals) -> StepSignals:
        signals = changed(signals, part, update_norms=lambda was: factor * was)
        if "gradients" in also:
            signals = changed(signals, part, grad_norms=lambda was: also["gradients"] * was)
        return signals

    return change


def test_update_ratio_names_the_matrix_when_it_alone_is_updated_far_faster() -> None:
    findings = told(updates(), 120, times(30.0), since=80)
    assert [name for name, _ in interruptions(findings)] == ["update_ratio_high"]
    evidence = findings[-1].evidence
    assert (evidence["parameter"], evidence["trigger"]) == (f"{ONE}.weight", "alone")
    assert findings[-1].step <= 80 + 24
    assert evidence["ratio"] == pytest.approx(30, rel=0.3)


def test_update_ratio_names_the_matrix_when_it_was_faster_than_its_like_from_the_start() -> None:
    findings = told(updates(), 80, times(30.0))
    assert [name for name, _ in interruptions(findings)] == ["update_ratio_high"]
    assert findings[-1].evidence["parameter"] == f"{ONE}.weight"


@pytest.mark.parametrize(
    "change", [times(30.0, gradients=30.0), times(30.0, ""), times(5.0), times(30.0, "head")]
)
def test_update_ratio_is_silent_when_gradients_or_all_updates_rose_alike_or_little(
    change: Callable[[StepSignals], StepSignals],
) -> None:
    def low_rate(signals: StepSignals) -> StepSignals:
        signals = changed(signals, "", update_norms=lambda was: SMALL_RATE * was)
        return change(signals) if signals.step > 80 else signals

    assert interruptions(told(updates(), 140, low_rate)) == []


def test_update_ratio_is_silent_when_momentum_carries_on_one_large_gradient() -> None:
    def echo(signals: StepSignals) -> StepSignals:
        return changed(signals, ONE, update_norms=0.01 * max(1.0, 250.0 * 0.9 ** (signals.step - 80)))

    assert interruptions(told(updates(), 140, echo, since=80)) == []


def test_update_ratio_is_silent_when_the_first_updates_are_large_and_the_loss_comes_down() -> None:
    def start(signals: StepSignals) -> StepSignals:
        factor = max(1.0, 500.0 * 0.85**signals.step)
        signals = changed(signals, "", update_norms=lambda was: factor * was)
        return replace(signals, loss=3.0 + 2.5 * 0.9**signals.step)

    def no_good(signals: StepSignals) -> StepSignals:
        return replace(start(signals), loss=3.0 + 0.2 * signals.step)

    assert interruptions(told(updates(), 40, start)) == []
    assert interruptions(told(updates(), 40, no_good))[0] == ("update_ratio_high", 4)


def test_update_ratio_low_interrupts_when_only_weight_decay_moves_the_weights() -> None:
    decay = 0.1
    detector = UpdateRatio(UpdateRatioConfig(), RunFacts(weight_decay=decay))

    def only_decay(signals: StepSignals) -> StepSignals:
        left = signals.lr * decay * 8.0 * (1 + 10.0 * 0.92 ** (signals.step - 100))
        return changed(signals, "", update_norms=left)

    findings = told(detector, 220, only_decay, since=100)
    assert [name for name, _ in interruptions(findings)] == ["update_ratio_low"]


def test_update_ratio_resumes_exactly_and_takes_no_numbers_that_are_not_finite() -> None:
    steps = [healthy_step(step) for step in range(1, 80)]
    steps += [times(30.0)(healthy_step(step)) for step in range(80, 120)]
    assert_resumes_exactly(updates, steps)
    assert_silent_when_not_finite(updates)


def faint(factor: float, *parts: str) -> Callable[[StepSignals], StepSignals]:
    def change(signals: StepSignals) -> StepSignals:
        return changed(signals, parts, grad_norms=lambda was: factor * was)

    return change


def test_dead_layer_names_the_matrix_when_its_gradient_all_but_leaves() -> None:
    findings = told(shares(), 100, faint(1e-3, ONE), since=70)
    assert [name for name, _ in interruptions(findings)] == ["dead_layer"]
    assert findings[-1].evidence["parameter"] == f"{ONE}.weight"
    assert findings[-1].step <= 80


@pytest.mark.parametrize("parts", [("blocks.0.up", "blocks.1.up", "blocks.2.up"), ("",)])
def test_dead_layer_is_silent_when_its_like_fall_as_far(parts: tuple[str, ...]) -> None:
    assert interruptions(told(shares(), 100, faint(1e-3, *parts), since=70)) == []


def test_dead_layer_is_silent_when_a_matrix_comes_and_goes_or_fades_slowly() -> None:
    def unsteady(signals: StepSignals) -> StepSignals:
        return faint(1e-3 if signals.step // 12 % 2 else 1.0, ONE)(signals)

    def fading(signals: StepSignals) -> StepSignals:
        return faint(0.9**signals.step, ONE)(signals)

    assert [step for _, step in interruptions(told(shares(), 100, unsteady))][1:] == []
    assert interruptions(told(DeadLayer(DeadLayerConfig(share_ratio=1e-9)), 80, fading)) == []


def test_dead_layer_resumes_exactly_when_a_matrix_is_lost() -> None:
    steps = [healthy_step(step) for step in range(1, 70)]
    assert_resumes_exactly(shares, steps + [faint(1e-3, ONE)(healthy_step(step)) for step in range(70, 100)])


def scaled(factor: float, *parts: str) -> StepSignals:
    return changed(healthy_step(1), parts or ONE, weight_norms=lambda was: factor * was)


def initial(signals: StepSignals) -> list[Finding]:
    return InitialLoss(InitialLossConfig(), None, False).observe(signals)


@pytest.mark.parametrize("factor", [30.0, 1e-2])
def test_initial_loss_names_the_matrix_when_its_first_weights_are_on_another_scale(factor: float) -> None:
    findings = initial(scaled(factor))
    assert findings[-1].interrupts
    evidence = findings[-1].evidence
    assert (evidence["parameter"], evidence["trigger"]) == (f"{ONE}.weight", "uneven")
    assert evidence["ratio"] == pytest.approx(factor)


@pytest.mark.parametrize(
    "signals",
    [
        scaled(0.0),
        scaled(3.0),
        scaled(30.0, "head", "embedding", "blocks.1.norm"),
        scaled(math.nan),
        replace(healthy_step(1), parameters=None),
    ],
)
def test_initial_loss_is_silent_when_weights_are_zero_or_alike_or_have_no_like(signals: StepSignals) -> None:
    assert initial(signals) == []


def test_odd_ones_are_those_beyond_a_gap_and_none_where_scales_go_gradually() -> None:
    assert odd_ones([0.0, 0.5, 4.0, -0.5], 2.0) == ([2], 3.5)
    assert odd_ones([0.0, 0.5, -4.0, -0.5], 2.0) == ([2], -3.5)
    assert odd_ones([0.0, 1.0, 2.0, 3.0, 4.0], 2.0) == ([], 0.0)
    assert odd_ones([1.0], 2.0) == ([], 0.0)
