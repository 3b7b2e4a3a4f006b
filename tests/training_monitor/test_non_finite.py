"""nan_loss and non_finite_gradient: what is told, where it began, and when a scaler nobody told of is at work."""

import math
from collections.abc import Iterable
from dataclasses import replace

from minigpt.training_monitor.detectors.non_finite import NonFinite
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.overflow import NonFiniteConfig
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import changed, healthy_step, heard, summary


def told(series: Iterable[StepSignals]) -> list[Finding]:
    return heard(NonFinite(NonFiniteConfig()), series)


def overflowed(step: int, *, moved: bool) -> StepSignals:
    """All gradients infinite under a finite loss; whether the update that ended the step before moved anything."""
    signals = changed(healthy_step(step), "", grad_norms=math.inf)
    return signals if moved else changed(signals, "", update_norms=0.0)


def calibrating(steps: int, first: int = 1) -> list[StepSignals]:
    """A scaler that nobody told of halves its scale, and leaves out every update, for so many steps."""
    return [overflowed(step, moved=False) for step in range(first, first + steps)]


def test_non_finite_gradient_never_interrupts_while_a_scaler_nobody_told_of_calibrates() -> None:
    found = told([*calibrating(20), *map(healthy_step, range(21, 60))])
    assert [(each.status, each.interrupts) for each in found] == [("suspected", False), ("transient", False)]


def test_non_finite_gradient_interrupts_when_the_calibration_never_ends() -> None:
    interrupting = [each for each in told(calibrating(50)) if each.interrupts]
    assert [(each.status, each.step) for each in interrupting] == [("sustained", 31)]


def test_non_finite_gradient_interrupts_at_once_when_the_weights_move_with_it() -> None:
    first = overflowed(1, moved=True)  # nothing to compare the weights with yet
    series = [first, *(overflowed(step, moved=True) for step in range(2, 6))]
    assert [(each.status, each.step) for each in told(series) if each.interrupts] == [("sustained", 3)]


def test_non_finite_gradient_interrupts_at_once_when_gradients_were_finite_before() -> None:
    series = [*map(healthy_step, range(1, 10)), *calibrating(3, first=10)]
    assert summary(told(series)) == [
        ("non_finite_gradient", "suspected", 10, True),
        ("non_finite_gradient", "sustained", 12, True),
    ]


def test_non_finite_gradient_interrupts_at_once_when_parameters_are_unknown() -> None:
    series = [StepSignals(step, 3.0, math.inf) for step in range(1, 4)]
    assert summary(told(series))[0] == ("non_finite_gradient", "suspected", 1, True)


def test_non_finite_gradient_is_harmless_later_when_the_update_was_seen_to_be_left_out() -> None:
    """A scaler that nobody told of tries a larger scale now and then: the second time it is known."""
    series = list(map(healthy_step, range(1, 60)))
    for at in (20, 40):
        series[at - 1] = changed(series[at - 1], "", grad_norms=math.inf)
        series[at] = changed(series[at], "", update_norms=0.0)
    assert summary(told(series)) == [
        ("non_finite_gradient", "suspected", 20, True),
        ("non_finite_gradient", "transient", 21, False),
        ("non_finite_gradient", "suspected", 40, False),
        ("non_finite_gradient", "transient", 41, False),
    ]


def test_non_finite_gradient_interrupts_again_when_the_update_was_not_left_out() -> None:
    series = list(map(healthy_step, range(1, 60)))
    for at in (20, 40):
        series[at - 1] = changed(series[at - 1], "", grad_norms=math.inf)
    assert [each.step for each in told(series) if each.interrupts] == [20, 40]


def test_nan_loss_interrupts_though_updates_are_left_out() -> None:
    series = [replace(step, loss=math.nan) for step in calibrating(4)]
    assert summary(told(series)) == [("nan_loss", "suspected", 1, True), ("nan_loss", "sustained", 3, True)]


def evidence(signals: StepSignals) -> Evidence:
    return told([signals])[0].evidence


def test_evidence_names_the_first_parameter_when_weights_are_not_finite() -> None:
    signals = changed(replace(healthy_step(9), loss=math.nan), ("blocks.1", "head"), weight_norms=math.nan)
    found = evidence(signals)
    assert (found["group"], found["parameter"]) == ("blocks.1", "blocks.1.norm.weight")
    assert (found["count"], found["of"], found["trigger"]) == (4, 12, "weights")
    groups = {"embedding": 1.0, "blocks.0": math.inf, "blocks.1": math.nan}
    found = evidence(StepSignals(9, math.nan, math.nan, weight_norms=groups))
    assert (found["group"], found["trigger"]) == ("blocks.0", "weights")


def test_evidence_names_the_last_parameter_when_gradients_are_not_finite() -> None:
    signals = changed(healthy_step(9), ("embedding", "blocks.0"), grad_norms=math.inf)
    found = evidence(signals)
    assert (found["group"], found["parameter"]) == ("blocks.0", "blocks.0.up.weight")
    assert (found["count"], found["of"], found["trigger"]) == (4, 12, "gradients")
    found = evidence(replace(signals, parameters=None))
    assert (found["group"], found["trigger"]) == ("blocks.0", "gradients")
    assert "group" not in evidence(replace(signals, loss=math.nan)), "a NaN loss spoils every gradient"


def test_evidence_tells_the_module_and_the_scale_when_they_are_known() -> None:
    look = Look(first_non_finite="blocks.2.mlp")
    found = evidence(replace(healthy_step(9), loss=math.inf, look=look, scaler_scale=8.0))
    assert (found["module"], found["scaler_scale"]) == ("blocks.2.mlp", 8.0)
    found = evidence(replace(healthy_step(9), loss=math.inf))
    assert "module" not in found
    assert "scaler_scale" not in found
