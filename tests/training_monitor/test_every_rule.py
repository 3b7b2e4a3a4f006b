"""Every finding of every rule is told of some series, and told just the same by a run that was resumed at any step."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from minigpt.training_monitor.detectors.detector import Detector
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    Change,
    changed,
    facts_with,
    healthy_step,
    heard,
    with_parameters,
)
from tests.training_monitor.statistical_series import CONFIG, FACTS, FIRES, healthy, spoilt

BEGINS, ENDS = 40, 60


def changed_steps(
    change: Change, *, begins: int = BEGINS, ends: int = ENDS, steps: int = 100
) -> list[StepSignals]:
    """A healthy run with a fault from one step up to another."""
    run = map(healthy_step, range(1, steps + 1))
    return [change(step) if begins <= step.step < ends else step for step in run]


def at_once(rows: Callable[[StepSignals], dict[str, Any]], **when: int) -> list[StepSignals]:
    return changed_steps(lambda step: replace(step, **rows(step)), **when)


def batch(**facts: Any) -> list[StepSignals]:
    def change(step: StepSignals) -> StepSignals:
        assert step.batch is not None
        return replace(step, batch=replace(step.batch, **facts))

    return changed_steps(change)


def forgotten(step: StepSignals) -> StepSignals:
    assert step.parameters is not None
    parameters = replace(step.parameters, facts=facts_with(left_out=("blocks.1",)))
    return changed(with_parameters(step, parameters), "blocks.1", update_norms=0.0)


def flushed(step: StepSignals) -> StepSignals:
    assert step.parameters is not None
    shares = [0.9 if BEGINS <= step.step < ENDS else 0.1] * len(step.parameters.facts)
    return replace(step, scaler_scale=8.0, parameters=replace(step.parameters, zero_fractions=shares))


def fresh_moments(step: StepSignals) -> StepSignals:
    left = max(0.0, 1 - (step.step - BEGINS) / 8) if step.step >= BEGINS else 0.0
    return replace(changed(step, "", update_norms=lambda norm: norm * 4**left), optimizer_steps=None)


def overflowing(scale: float) -> list[StepSignals]:
    steps = at_once(lambda step: {"grad_norm": math.inf, "scaler_overflow": True, "update_skipped": True})
    return [replace(step, scaler_scale=scale) for step in steps]


SERIES: dict[str, tuple[str, Callable[[], list[StepSignals]]]] = {
    # finding -> (rule, series)
    "nan_loss": ("non_finite", lambda: at_once(lambda step: {"loss": math.nan})),
    "non_finite_gradient": ("non_finite", lambda: at_once(lambda step: {"grad_norm": math.inf})),
    "future_leak": ("future_leak", lambda: at_once(lambda step: {"future_influence": 0.02})),
    "overflow_streak": ("fp16", lambda: overflowing(65536.0)),
    "scale_collapse": ("fp16", lambda: at_once(lambda step: {"scaler_scale": 0.5})),
    "gradient_underflow": ("fp16", lambda: list(map(flushed, map(healthy_step, range(1, 100))))),
    "missing_gradient": (
        "missing_gradient",
        lambda: changed_steps(lambda step: changed(step, ("embedding", "blocks.0"), grad_norms=None)),
    ),
    "dead_layer": (
        "dead_layer",
        lambda: changed_steps(lambda step: changed(step, "blocks.1", grad_norms=0.0)),
    ),
    "unoptimized_parameter": ("unoptimized_parameter", lambda: changed_steps(forgotten)),
    "frozen_parameter": (
        "frozen_parameter",
        lambda: changed_steps(lambda step: changed(step, "blocks.1", update_norms=0.0)),
    ),
    "no_update": (
        "frozen_parameter",
        lambda: changed_steps(lambda step: changed(step, "", update_norms=0.0)),
    ),
    "learning_rate_mismatch": ("learning_rate_mismatch", lambda: at_once(lambda step: {"lr": 3e-4})),
    "leftover_gradient": ("leftover_gradient", lambda: at_once(lambda step: {"leftover_grad_norm": 0.4})),
    "optimizer_state_lost": (
        "optimizer_state_lost",
        lambda: list(map(fresh_moments, map(healthy_step, range(1, 100)))),
    ),
    "weight_jump": (
        "weight_jump",
        lambda: changed_steps(
            lambda step: changed(step, "blocks.1.up", weight_norms=lambda norm: norm + 0.5), ends=10**9
        ),
    ),
    "initial_loss": ("initial_loss", lambda: at_once(lambda step: {"loss": 12.0}, begins=1, ends=8)),
    "repeated_batch": ("repeated_batch", lambda: batch(hash=7)),
    "degenerate_batch": ("degenerate_batch", lambda: batch(distinct_tokens=1, top_fraction=1.0)),
    "label_mismatch": ("labels", lambda: batch(label_match=0.01)),
    "label_leak": ("labels", lambda: batch(label_match=0.01, label_copy=1.0)),
    "loss_plateau": ("loss_plateau", lambda: [replace(step, loss=5.5) for step in healthy(260)]),
}


def _fired(name: str) -> Callable[[], list[StepSignals]]:
    return lambda: spoilt(FIRES[name][1], 330)


SERIES |= {name: (fires[0], _fired(name)) for name, fires in FIRES.items()}


def build(rule: str) -> Detector:
    return RULES[rule].build(CONFIG, FACTS)


def observed(detector: Detector, series: Iterable[StepSignals], declared: int) -> list[str]:
    """What it says of each step (as text: NaN is not equal to itself), where a change is declared at one."""
    found = []
    for step in series:
        if step.step == declared:
            detector.rebase()
        found.append(repr(detector.observe(step)))
    return found


def test_series_tell_every_finding_of_every_rule() -> None:
    told: dict[str, set[str]] = {rule: set() for rule in RULES}
    for name, (rule, series) in SERIES.items():
        names = {found.name for found in heard(build(rule), series())}
        assert name in names
        told[rule] |= names
    assert told == {rule: set(RULES[rule].findings) for rule in RULES}


@pytest.mark.parametrize("declared", [0, 25, 50], ids=["no change declared", "before", "during"])
@pytest.mark.parametrize("name", SERIES)
def test_rule_tells_the_same_when_resumed_at_any_step(name: str, declared: int) -> None:
    rule, make = SERIES[name]
    series = make()
    onset = BEGINS if len(series) <= 100 else 150
    declared = 0 if not declared else onset + declared - BEGINS
    whole, states, expected = build(rule), [], []
    for step in series:
        states.append(json.dumps(whole.state_dict()))
        expected += observed(whole, [step], declared)
    for split in {*range(1, len(series), 23), *range(onset - 1, onset + 24, 5)}:
        resumed = build(rule)
        resumed.load_state_dict(json.loads(states[split]))
        assert json.dumps(resumed.state_dict()) == states[split]
        assert observed(resumed, series[split:], declared) == expected[split:]
        assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())
