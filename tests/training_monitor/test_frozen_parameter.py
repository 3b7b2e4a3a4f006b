"""frozen_parameter and no_update: weights that stand still though they should not."""

import random
from dataclasses import replace

import torch

from minigpt.training_monitor.detectors.frozen_parameter import FrozenParameter
from minigpt.training_monitor.detectors.frozen_parameter_config import FrozenParameterConfig
from minigpt.training_monitor.probes.parameter_table import ParameterTable
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    FACTS,
    NAMES,
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    facts_with,
    healthy_step,
    summary,
    told,
    with_parameters,
)


def build() -> FrozenParameter:
    return FrozenParameter(FrozenParameterConfig())


def still(signals: StepSignals) -> StepSignals:
    return changed(signals, "blocks.1", update_norms=0.0)


def nothing(signals: StepSignals) -> StepSignals:
    return changed(signals, "", update_norms=0.0)


def test_frozen_parameter_interrupts_at_the_fourth_update_when_a_block_stops_moving() -> None:
    findings = told(build(), 40, still, since=20)
    assert summary(findings) == [
        ("frozen_parameter", "suspected", 23, False),
        ("frozen_parameter", "sustained", 23, True),
    ]
    evidence = findings[-1].evidence
    assert (evidence["group"], evidence["count"], evidence["since"]) == ("blocks.1", 3, 19)


def test_frozen_parameter_interrupts_when_a_block_never_moves() -> None:
    findings = told(build(), 40, still)
    assert (findings[-1].step, findings[-1].interrupts) == (9, True)


def test_frozen_parameter_is_silent_when_a_group_has_a_rate_of_zero_from_the_start() -> None:
    facts = replace(FACTS, resting=tuple(name.startswith("blocks.0") for name in NAMES))

    def resting(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        signals = with_parameters(signals, replace(signals.parameters, facts=facts))
        return changed(signals, "blocks.0", update_norms=0.0)

    assert told(build(), 40, resting) == []
    assert told(build(), 40, resting, since=20)[-1].interrupts


def test_frozen_parameter_is_silent_when_it_was_told_of_another_reason() -> None:
    def outside(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        facts = facts_with(left_out=("blocks.1",))
        return still(with_parameters(signals, replace(signals.parameters, facts=facts)))

    def skipped(signals: StepSignals) -> StepSignals:
        return replace(nothing(signals) if signals.step > 20 else signals, update_skipped=True)

    def without_gradient(signals: StepSignals) -> StepSignals:
        return changed(still(signals), "blocks.1", grad_norms=0.0)

    assert told(build(), 40, outside, since=20) == []
    assert told(build(), 40, skipped, since=20) == []
    assert told(build(), 40, without_gradient, since=19) == []


def test_frozen_parameter_is_silent_when_coarse_scales_cannot_take_small_steps() -> None:
    detector = build()
    for step in range(1, 300):
        chance = random.Random(step)
        signals = healthy_step(step)
        for block in range(3):
            if step < 40 or step > 80 or chance.random() < 0.8:
                signals = changed(signals, f"blocks.{block}.norm", update_norms=0.0)
        assert detector.observe(signals) == []


def test_no_update_interrupts_at_the_third_update_when_the_step_is_never_called() -> None:
    findings = told(build(), 40, nothing, since=20)
    assert summary(findings) == [("no_update", "suspected", 20, False), ("no_update", "sustained", 22, True)]
    assert findings[-1].evidence["lr"] == 1e-3


def test_no_update_interrupts_when_the_rate_falls_to_zero() -> None:
    def off(signals: StepSignals) -> StepSignals:
        return replace(nothing(signals), lr=0.0, scheduled_lr=None)

    findings = told(build(), 40, off, since=20)
    assert findings[-1].interrupts
    assert findings[-1].evidence["lr"] == 0.0


def test_no_update_is_seen_from_the_counts_or_the_rate_alone() -> None:
    def bare(signals: StepSignals) -> StepSignals:
        return replace(signals, parameters=None, update_ratios={}, weight_norms={})

    def not_counted(signals: StepSignals) -> StepSignals:
        return replace(bare(signals), optimizer_steps=18.0)

    detector = build()
    findings = []
    for step in range(1, 40):
        signals = bare(healthy_step(step))
        findings += detector.observe(not_counted(signals) if step >= 20 else signals)
    assert findings[-1].interrupts
    detector = build()
    findings = []
    for step in range(10, 400, 10):
        signals = replace(bare(healthy_step(step)), optimizer_steps=None, scheduled_lr=None)
        findings += detector.observe(replace(signals, lr=0.0) if step >= 200 else signals)
    assert findings[-1].interrupts


def test_no_update_is_silent_when_a_schedule_begins_or_ends_at_zero() -> None:
    def rate(signals: StepSignals) -> StepSignals:
        lr = max(0.0, 1e-3 * (1 - signals.step / 30)) if signals.step > 1 else 0.0
        last = max(0.0, 1e-3 * (1 - (signals.step - 1) / 30)) if signals.step > 2 else 0.0
        moved = signals if last > 0.0 else nothing(signals)
        return replace(moved, lr=lr, scheduled_lr=None)

    def planned(signals: StepSignals) -> StepSignals:
        return replace(rate(signals), scheduled_lr=rate(signals).lr)

    assert told(build(), 60, rate) == []
    assert told(build(), 60, planned) == []


def test_no_update_is_silent_when_the_rate_was_never_told() -> None:
    def unknown(signals: StepSignals) -> StepSignals:
        return replace(signals, lr=0.0, scheduled_lr=None, parameters=None, update_ratios={})

    assert told(build(), 40, unknown) == []


def test_frozen_parameter_resumes_exactly() -> None:
    steps = [healthy_step(step) for step in range(1, 20)] + [
        still(healthy_step(step)) for step in range(20, 28)
    ]
    steps += [nothing(healthy_step(step)) for step in range(28, 34)]
    assert_resumes_exactly(build, [*steps, *map(healthy_step, range(34, 50))])
    assert_silent_when_not_finite(build)


def test_table_says_which_parameters_rest_in_a_group_with_a_rate_of_zero() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.0)
    optimizer.add_param_group({"params": model[1].parameters(), "lr": 0.1})
    table = ParameterTable(model, [optimizer])
    assert table.facts.resting == (True, True, False)
    optimizer.param_groups[0]["lr"] = 0.1
    table.refresh()
    assert table.facts.resting is None


def test_no_update_interrupts_when_every_third_step_is_left_out() -> None:
    found = told(build(), 60, lambda signals: signals if signals.step % 3 else nothing(signals), since=20)
    interrupting = [finding for finding in found if finding.interrupts]
    assert summary(interrupting) == [("no_update", "sustained", 33, True)]


def test_no_update_is_quiet_when_gradients_are_kept_for_the_next_update() -> None:
    def accumulated(signals: StepSignals) -> StepSignals:
        return replace(nothing(signals), leftover_grad_norm=0.4) if signals.step % 2 else signals

    assert not any(finding.interrupts for finding in told(build(), 60, accumulated))


def test_frozen_parameter_is_silent_when_the_gradient_is_what_rounding_leaves_of_zero() -> None:
    """A bias before a batch norm: 6e-9 beside gradients of 0.1."""

    def rounded(signals: StepSignals) -> StepSignals:
        return changed(still(signals), "blocks.1", grad_norms=6e-9)

    assert told(build(), 40, rounded) == []


def test_frozen_parameter_is_silent_when_other_scales_rest_from_time_to_time() -> None:
    """In bf16 a scale near 1 takes a small step or it does not: one that rests longer than ever is no exception."""

    def coarse(signals: StepSignals) -> StepSignals:
        step = signals.step
        if step % 9 < 7:
            signals = changed(signals, "blocks.0.norm", update_norms=0.0)
        return changed(signals, "blocks.2.norm", update_norms=0.0) if step >= 60 else signals

    def alone(signals: StepSignals) -> StepSignals:
        return changed(signals, "blocks.2.norm", update_norms=0.0) if signals.step >= 60 else signals

    assert [finding for finding in told(build(), 120, alone) if finding.interrupts]
    assert [finding for finding in told(build(), 120, coarse) if finding.interrupts] == []
