"""The statistical rules, each on a series that it must find, one it must not, and one with broken numbers."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.parameter_signals import ParameterSignals
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.statistical_series import (
    CONFIG,
    FACTS,
    FIRES,
    ONSET,
    PARAMETERS,
    all_gradients,
    healthy,
    looked,
    spoilt,
    updates,
)

QUIET = {"memory_growth", "clip_saturation"}
"""These are noted, and interrupt only when asked to."""


def told(rule: str, series: Iterable[StepSignals], facts: RunFacts = FACTS) -> list[Finding]:
    detector = RULES[rule].build(CONFIG, facts)
    return [finding for step in series for finding in detector.observe(step)]


@pytest.mark.parametrize("name", FIRES)
def test_rule_finds_its_fault_when_it_lasts(name: str) -> None:
    rule, change, within = FIRES[name]
    lasting = [f for f in told(rule, spoilt(change)) if f.status == "sustained" and f.name == name]
    assert lasting
    assert ONSET < lasting[0].step <= ONSET + within
    assert lasting[0].interrupts is (name not in QUIET)


@pytest.mark.parametrize("name", FIRES)
def test_rule_never_interrupts_when_the_run_is_healthy(name: str) -> None:
    for seed in range(3):
        found = told(FIRES[name][0], healthy(420, seed))
        assert [finding for finding in found if finding.interrupts] == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", sorted({rule for rule, _, _ in FIRES.values()}))
def test_rule_goes_on_as_before_when_numbers_are_broken_now_and_then(rule: str, bad: float) -> None:
    series = [
        step
        if step.step % 7
        else replace(
            step,
            loss=bad,
            grad_norm=bad,
            group_norms=dict.fromkeys(step.group_norms, bad),
            weight_norms=dict.fromkeys(step.weight_norms, bad),
            update_ratios=dict.fromkeys(step.update_ratios, bad),
            tokens_per_second=bad,
            parameters=ParameterSignals(PARAMETERS, [bad] * 4, [bad] * 4, [bad] * 4),
            look=looked(bad, bad, bad, bad),
        )
        for step in healthy(300)
    ]
    assert [finding for finding in told(rule, series) if finding.interrupts] == []


@pytest.mark.parametrize("rule", sorted({rule for rule, _, _ in FIRES.values()}))
def test_rule_stays_silent_when_its_signals_are_missing(rule: str) -> None:
    assert told(rule, [StepSignals(step, 3.0, math.nan) for step in range(1, 200)]) == []


def test_scale_shift_is_not_called_an_explosion_when_all_groups_moved_by_one_factor() -> None:
    found = told("gradient_exploding", spoilt(all_gradients(lambda since: 8.0)))
    assert [finding for finding in found if finding.interrupts] == []


def test_exploding_names_the_group_that_explodes_alone_when_the_total_hardly_shows_it() -> None:
    def rise(step: StepSignals, since: int) -> StepSignals:
        groups = {**step.group_norms, "norm": 5 * step.group_norms["blocks.0"], "blocks.1": 0.01}
        return replace(step, group_norms=groups, grad_norm=math.hypot(*groups.values()))

    before = [
        replace(step, group_norms={**step.group_norms, "norm": 0.2 * step.group_norms["norm"]})
        for step in healthy(ONSET)
    ]
    series = before + spoilt(rise, 200)[ONSET:]
    lasting = [finding for finding in told("gradient_exploding", series) if finding.interrupts]
    assert [finding.evidence["group"] for finding in lasting] == ["norm"]


def test_scale_shift_stays_silent_when_the_tokens_of_a_step_changed() -> None:
    change = all_gradients(lambda since: 0.3)
    series = spoilt(lambda step, since: replace(change(step, since), tokens=4096))
    assert told("gradient_scale_shift", series) == []


def test_scale_shift_leaves_a_slow_decline_to_gradient_vanishing() -> None:
    found = told("gradient_scale_shift", spoilt(all_gradients(lambda since: 0.97**since)))
    assert [finding for finding in found if finding.interrupts] == []


def test_vanishing_names_eps_when_every_gradient_is_below_it_from_the_start() -> None:
    fade = all_gradients(lambda since: 3e-8)
    found = told("gradient_vanishing", [fade(step, 1) for step in healthy(200)])
    assert found[0].evidence["trigger"] == "eps" or found[0].evidence["trigger"] == "floor"
    assert [finding.status for finding in found if finding.interrupts] == ["sustained"]


def test_divergence_does_not_interrupt_when_harder_data_are_learnt_again() -> None:
    def harder(step: StepSignals, since: int) -> StepSignals:
        return replace(step, loss=step.loss * (1 + 0.6 * math.exp(-since / 40)))

    assert [finding for finding in told("loss_divergence", spoilt(harder)) if finding.interrupts] == []


def test_divergence_waits_longer_when_gradients_and_updates_are_as_before() -> None:
    found = told("loss_divergence", spoilt(lambda step, since: replace(step, loss=step.loss * 1.5)))
    lasting = [finding for finding in found if finding.interrupts]
    assert lasting
    assert all(finding.step >= ONSET + 4 * 48 for finding in lasting)


def test_divergence_interrupts_when_the_loss_stands_far_above_its_best() -> None:
    found = told(
        "loss_divergence",
        spoilt(lambda step, since: replace(step, loss=step.loss * 1.5, grad_norm=5 * step.grad_norm)),
    )
    lasting = [finding for finding in found if finding.interrupts]
    assert [finding.evidence["trigger"] for finding in lasting] == ["lasting"]
    assert lasting[0].step < ONSET + 80


def test_divergence_interrupts_when_the_gradients_carry_no_signal_any_more() -> None:
    fade = all_gradients(lambda since: 0.2)
    series = spoilt(lambda step, since: replace(fade(step, since), loss=step.loss * 1.2))
    lasting = [finding for finding in told("loss_divergence", series) if finding.interrupts]
    assert [finding.evidence["trigger"] for finding in lasting] == ["no_signal"]


def test_divergence_interrupts_sooner_when_all_that_was_learnt_is_gone() -> None:
    def forgotten(step: StepSignals, since: int) -> StepSignals:
        return replace(step, loss=0.95 * healthy(1)[0].loss)

    lasting = [finding for finding in told("loss_divergence", spoilt(forgotten)) if finding.interrupts]
    assert [finding.evidence["trigger"] for finding in lasting] == ["forgotten"]
    assert lasting[0].step < ONSET + 45


def test_collapse_does_not_interrupt_when_a_tiny_data_set_is_learnt_by_heart() -> None:
    def learnt(step: StepSignals, since: int) -> StepSignals:
        return replace(step, loss=max(step.loss * math.exp(-since / 25), 0.02))

    assert [finding for finding in told("loss_collapse", spoilt(learnt)) if finding.interrupts] == []


def plateau(loss: Callable[[int], float], facts: RunFacts = FACTS) -> list[Finding]:
    series = [StepSignals(step, loss(step), 0.1) for step in range(1, 400)]
    return [finding for finding in told("loss_plateau", series, facts=facts) if finding.interrupts]


KNOWN = replace(FACTS, unigram_loss=4.0)


def test_plateau_interrupts_when_only_the_frequencies_were_learnt() -> None:
    def stuck(step: int) -> float:
        return max(5.5 - 0.05 * step, 4.05)

    assert [finding.step for finding in plateau(stuck, KNOWN)] == [200]
    assert plateau(stuck) == []  # it has fallen, and nothing else is known


def test_plateau_stays_silent_when_the_loss_is_below_the_frequencies_or_on_its_way() -> None:
    assert plateau(lambda step: max(5.5 - 0.05 * step, 3.9), KNOWN) == []
    assert plateau(lambda step: 5.5 - 0.0065 * step, KNOWN) == []


def test_plateau_interrupts_later_when_a_slow_run_comes_to_a_stand_at_the_frequencies() -> None:
    found = plateau(lambda step: max(5.5 - 0.0065 * step, 4.05), KNOWN)

    assert len(found) == 1
    assert 225 < found[0].step < 300


def test_plateau_interrupts_when_nothing_was_ever_learnt() -> None:
    assert [finding.step for finding in plateau(lambda step: 5.5)] == [200]


def test_plateau_stays_silent_when_the_run_has_learnt_or_began_with_trained_weights() -> None:
    assert plateau(lambda step: max(5.5 - 0.02 * step, 2.5)) == []
    assert plateau(lambda step: 2.5) == []


def test_update_ratio_follows_the_learning_rate_when_it_decays_and_restarts() -> None:
    def scaled(step: StepSignals) -> StepSignals:
        factor = 0.01 + 0.99 * (1 - (step.step % 100) / 100)
        return replace(updates(factor)(step, 1), lr=step.lr * factor)

    series = [scaled(step) for step in healthy(420)]
    shifted = [replace(step, lr=series[i + 1].lr) for i, step in enumerate(series[:-1])]
    assert told("update_ratio", shifted) == []


def test_update_ratio_leaves_out_a_weight_that_starts_at_zero() -> None:
    series = []
    for step in healthy(100):
        assert step.parameters is not None
        weights = [10.0, 10.0, 1e-3 * step.step, 10.0]
        series.append(
            replace(step, parameters=replace(step.parameters, weight_norms=weights, update_norms=[1e-3] * 4))
        )
    assert told("update_ratio", series) == []


def test_throughput_is_not_called_slow_when_evaluations_pause_the_run() -> None:
    series = [step if step.step % 50 else replace(step, tokens_per_second=1.0) for step in healthy(400)]
    assert told("throughput_drop", series) == []


def test_memory_growth_stays_silent_when_the_peak_rises_once() -> None:
    series = [replace(step, memory_bytes=10**9 * (2 if step.step > 200 else 1)) for step in healthy(400)]
    assert told("memory_growth", series) == []
