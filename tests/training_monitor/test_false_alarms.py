"""What healthy trainings do that looks like a fault, each beside the fault that it looks like."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

ONSET = 200
Number = Callable[[int], float]
WATCHED = ParameterSignals(
    ParameterFacts(names=("w",), groups=("w",), sizes=(9,), trainable=(True,), optimized=(True,)),
    [1.0],
    [1.0],
    [0.01],
)


def learnt(step: int) -> float:
    return 2.5 + 3 * math.exp(-step / 40)


def series(
    loss: Number, norm: Number = lambda step: 1.0, update: Number = lambda step: 0.01, steps: int = 520
) -> list[StepSignals]:
    chance = random.Random(1)
    return [
        StepSignals(
            step,
            loss(step) * chance.lognormvariate(0, 0.02),
            norm(step) * chance.lognormvariate(0, 0.1),
            1e-3,
            update_ratios={"w": update(step)},
        )
        for step in range(1, steps + 1)
    ]


def found(rule: str, run: list[StepSignals], facts: RunFacts | None = None) -> list[Finding]:
    detector = RULES[rule].build(MonitorConfig(), facts or RunFacts(vocab_size=256))
    return [finding for signals in run for finding in detector.observe(signals)]


def triggers(findings: list[Finding]) -> list[object]:
    return [finding.evidence.get("trigger", "") for finding in findings if finding.interrupts]


def test_divergence_interrupts_when_a_loss_that_leapt_never_comes_half_way_down() -> None:
    leapt = series(lambda step: learnt(step) * (1.0 if step < ONSET else 1.7))
    assert triggers(found("loss_divergence", leapt)) == ["lasting"]


def test_divergence_stays_quiet_when_the_loss_creeps_up_and_nothing_else_moves() -> None:
    crept = series(lambda step: learnt(step) * (1 + max(0, step - ONSET) / 800), steps=900)
    assert triggers(found("loss_divergence", crept)) == []


def test_divergence_stays_quiet_when_the_loss_comes_back_from_a_while_of_easy_data() -> None:
    eased = series(lambda step: learnt(step) * (0.6 if 230 < step < 248 else 1.0))
    assert triggers(found("loss_divergence", eased)) == []


def test_divergence_stays_quiet_when_every_other_batch_is_of_a_new_kind_that_is_being_learnt() -> None:
    def mixed(step: int) -> float:
        new = step >= ONSET and step % 2
        return learnt(step) + (3.5 * math.exp(-(step - ONSET) / 25) + 0.5 if new else 0.0)

    assert triggers(found("loss_divergence", series(mixed))) == []


@pytest.mark.parametrize(("grad_norm", "expected"), [(2.0, []), (9.0, ["lasting"])])
def test_divergence_asks_more_of_the_gradients_than_a_larger_loss_explains(
    grad_norm: float, expected: list[str]
) -> None:
    run = series(
        lambda step: learnt(step) * (1.0 if step < ONSET else 1.7),
        lambda step: 1.0 if step < ONSET else grad_norm,
        steps=ONSET + 100,
    )
    assert triggers(found("loss_divergence", run)) == expected


def climb(factor: float) -> Number:
    return lambda step: learnt(step) * factor ** (max(0, min(step - ONSET, 120)) / 120)


@pytest.mark.parametrize(
    ("factor", "watched", "told"), [(2.5, False, True), (2.5, True, False), (40.0, True, True)]
)
def test_divergence_needs_a_larger_climb_when_a_watched_model_is_never_given_tokens(
    factor: float, watched: bool, told: bool
) -> None:
    run = series(climb(factor))
    if watched:
        run = [replace(step, parameters=WATCHED) for step in run]
    assert bool(triggers(found("loss_divergence", run, RunFacts()))) is told


@pytest.mark.parametrize(("update", "loss", "told"), [(1.0, 1.0, False), (8.0, 1.0, True), (1.0, 1.6, True)])
def test_a_climb_of_the_gradients_interrupts_when_updates_or_loss_show_it(
    update: float, loss: float, told: bool
) -> None:
    run = series(
        lambda step: 3.0 * (1.0 if step < ONSET else loss),
        lambda step: 1.03 ** max(0, step - ONSET),
        lambda step: 0.01 * (1.0 if step < ONSET else update),
        steps=ONSET + 130,
    )
    assert (triggers(found("gradient_exploding", run)) == ["climb"]) is told


@pytest.mark.parametrize(("loss", "expected"), [(1.0, ["lasts"]), (0.5, [])])
def test_a_lasting_leap_of_the_gradients_is_no_explosion_while_the_loss_falls(
    loss: float, expected: list[str]
) -> None:
    run = series(
        lambda step: 3.0 * (1.0 if step < ONSET else loss),
        lambda step: 1.0 if step < ONSET else 12.0,
        steps=ONSET + 30,
    )
    assert triggers(found("gradient_exploding", run)) == expected


@pytest.mark.parametrize(("loss", "expected"), [(1.0, []), (3.0, ["lasts"])])
def test_gradients_that_grow_in_a_young_run_explode_only_with_the_loss(
    loss: float, expected: list[str]
) -> None:
    run = series(
        lambda step: 3.0 * (1.0 if step < 30 else loss), lambda step: 1.0 if step < 30 else 20.0, steps=60
    )
    assert triggers(found("gradient_exploding", run)) == expected


@pytest.mark.parametrize(("norm", "expected"), [(6.0, []), (60.0, ["norm"])])
def test_a_lasting_loss_spike_asks_more_of_the_gradients_than_the_loss_explains(
    norm: float, expected: list[str]
) -> None:
    run = series(
        lambda step: 3.0 if step < ONSET else 15.0,
        lambda step: 1.0 if step < ONSET else norm,
        steps=ONSET + 20,
    )
    assert triggers(found("loss_spike", run, RunFacts())) == expected


def test_spikes_that_come_again_and_again_are_an_event_only_when_larger_than_all_before() -> None:
    def spiky(step: int) -> float:
        return 3.0 * (9.0 if step == 500 else 3.0 + step % 3 if step > 60 and step % 9 == 0 else 1.0)

    opened = [f.step for f in found("loss_spike", series(spiky)) if f.status == "suspected"]
    assert 500 in opened
    assert len(opened) < 12


@pytest.mark.parametrize(("before", "told"), [(1.0, True), (0.1, False)])
def test_collapse_interrupts_unless_the_run_has_been_as_low_before(before: float, told: bool) -> None:
    run = series(lambda step: 4.0 * (0.15 if step >= ONSET else before if 100 <= step < 103 else 1.0))
    assert any(finding.interrupts for finding in found("loss_collapse", run)) is told


def test_collapse_stays_quiet_when_the_loss_falls_faster_and_faster_until_the_task_is_understood() -> None:
    run = series(lambda step: 4.0 / (1 + math.exp((step - ONSET) / 6)) + 0.05)
    assert [finding for finding in found("loss_collapse", run) if finding.interrupts] == []


@pytest.mark.parametrize(
    ("logit", "loss", "told"), [(900.0, 3.0, True), (120.0, 3.0, False), (120.0, 0.3, False)]
)
def test_saturated_attention_interrupts_unless_the_training_is_none_the_worse_for_it(
    logit: float, loss: float, told: bool
) -> None:
    run = [
        replace(
            step,
            look=Look(attention_logit_max={"blocks.0": 5.0 if step.step < 150 else logit})
            if step.step % 10 == 0
            else None,
        )
        for step in series(lambda step: max(loss, 5.0 - step / 20))
    ]
    interrupting = [finding.step for finding in found("forward_growth", run) if finding.interrupts]
    assert bool(interrupting) is told
