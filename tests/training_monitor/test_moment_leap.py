"""The leap of fresh moments: all layers alike, for no reason, and on its way back soon after."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.detectors.moment_leap import MomentLeap
from minigpt.training_monitor.signals import StepSignals

LAYERS = ("embedding", "blocks.0", "blocks.1", "blocks.2", "head")
AT = 40
"""The step that measures the first update of the fresh moments."""


def settling(step: int) -> float:
    """What is left of the leap (1: all) at a step."""
    return max(0.0, 1 - (step - AT) / 5) if step >= AT else 0.0


def signals(
    step: int,
    *,
    leap: float = 1.0,
    left: Callable[[int], float] = settling,
    loss: float = 3.0,
    lr: float = 1e-3,
    norm: float = 1.0,
    rest: tuple[str, ...] = (),
    noise: float = 0.02,
) -> StepSignals:
    """Updates `leap` times their normal, where `left` says so, but for the layers that `rest`."""
    chance = random.Random(step)
    ratios = {
        name: 0.01 * chance.lognormvariate(0, noise) * (1.0 if name in rest else leap ** left(step))
        for name in LAYERS
    }
    return StepSignals(
        step,
        loss * chance.lognormvariate(0, 0.005),
        norm * chance.lognormvariate(0, 0.05),
        lr,
        update_ratios=ratios,
    )


def told(step_at: Callable[[int], StepSignals], steps: int = 80, *, patience: int = 16) -> dict[int, float]:
    """Steps at which it speaks, and how far the updates had leapt."""
    detector, last, found = MomentLeap(1.4, 16, patience), LastStep(), {}
    for step in range(1, steps + 1):
        now = step_at(step)
        ratio = detector.observe(now, last) if last.step is not None else None
        last.take(now)
        if ratio is not None:
            found[step] = ratio
    return found


@pytest.mark.parametrize("leap", [1.6, 4.0, 100.0, 0.5, 0.1])
def test_leap_is_told_with_its_size_when_it_settles(leap: float) -> None:
    found = told(lambda step: signals(step, leap=leap))
    assert list(found) == [AT + 2]  # 60 % is left there, 80 % a step before
    assert found[AT + 2] == pytest.approx(leap, rel=0.1)


def test_leap_is_told_when_all_but_a_few_layers_take_part() -> None:
    assert told(lambda step: signals(step, leap=4.0, rest=("head",)))
    assert not told(lambda step: signals(step, leap=4.0, rest=("head", "embedding")))


def test_leap_is_silent_when_it_is_over_with_one_step() -> None:
    assert not told(lambda step: signals(step, leap=4.0, left=lambda step: float(step == AT)))


def test_leap_is_silent_when_it_stays() -> None:
    assert not told(lambda step: signals(step, leap=4.0, left=lambda step: float(step >= AT)))
    late = told(
        lambda step: signals(step, leap=4.0, left=lambda step: float(AT <= step < AT + 15)), patience=10
    )
    assert not late, "what settles after the patience is no leap"


def test_leap_is_silent_when_it_is_larger_than_fresh_moments_can_make_it() -> None:
    assert not told(lambda step: signals(step, leap=1000.0))


def test_leap_is_silent_when_updates_are_as_uneven_as_that_all_the_time() -> None:
    calm = told(lambda step: signals(step, leap=2.0))
    assert calm
    assert not told(lambda step: signals(step, leap=2.0, noise=0.6))


def after(step: int, change: float) -> float:
    return change if step >= AT - 1 else 1.0


@pytest.mark.parametrize("change", [2.0, 0.5])
def test_leap_is_silent_when_the_gradients_leapt_as_well(change: float) -> None:
    assert not told(lambda step: signals(step, leap=4.0, norm=after(step, change)))


@pytest.mark.parametrize("change", [2.0, 0.5])
def test_leap_is_silent_when_the_rate_changes_at_it(change: float) -> None:
    def rated(step: int) -> StepSignals:
        return signals(step, leap=4.0, lr=1e-3 * (change if step >= AT else 1.0))

    assert not told(rated)


@pytest.mark.parametrize("change", [1.1, 0.9])
def test_leap_is_silent_when_the_loss_moved(change: float) -> None:
    assert not told(lambda step: signals(step, leap=4.0, loss=3.0 * after(step, change)))


def test_large_leap_is_told_though_it_shakes_the_loss_it_leads_to() -> None:
    assert told(lambda step: signals(step, leap=50.0, loss=3.0 * (1.5 if step >= AT else 1.0)))
    assert not told(lambda step: signals(step, leap=4.0, loss=3.0 * (1.5 if step >= AT else 1.0)))


def test_update_is_measured_per_unit_of_its_own_rate() -> None:
    def scheduled(step: int) -> StepSignals:
        lr = 1e-3 * 0.9**step
        now = signals(step, lr=lr)
        ratios = {name: ratio * 0.9 ** (step - 1) for name, ratio in now.update_ratios.items()}
        return StepSignals(step, now.loss, now.grad_norm, lr, update_ratios=ratios)

    assert not told(scheduled)


def test_normal_is_learnt_anew_when_another_level_stays() -> None:
    """A level that stays for the patience is the new normal: a leap from there is told again."""

    def level(step: int) -> StepSignals:
        raised = signals(step, leap=4.0, left=lambda step: settling(step - 60))
        factor = 3.0 if step >= 30 else 1.0
        ratios = {name: factor * ratio for name, ratio in raised.update_ratios.items()}
        return StepSignals(step, raised.loss, raised.grad_norm, 1e-3, update_ratios=ratios)

    assert list(told(level, 140)) == [AT + 62]


def test_normal_is_learnt_anew_when_updates_stay_elsewhere_for_a_reason() -> None:
    """Updates and gradients rose together at step 30: no leap, and after the patience the normal to leap from."""

    def level(step: int) -> StepSignals:
        factor = 3.0 if step >= 30 else 1.0
        raised = signals(step, leap=4.0, left=lambda step: settling(step - 60), norm=factor)
        ratios = {name: factor * ratio for name, ratio in raised.update_ratios.items()}
        return StepSignals(step, raised.loss, raised.grad_norm, 1e-3, update_ratios=ratios)

    assert list(told(level, 140)) == [AT + 62]


def test_leap_is_told_when_most_of_it_is_over_at_the_second_step() -> None:
    found = told(
        lambda step: signals(step, leap=4.0, left=lambda step: {AT: 1.0, AT + 1: 0.8}.get(step, 0.0))
    )
    assert list(found) == [AT + 2]


def test_leap_is_silent_after_a_declared_change() -> None:
    detector, last = MomentLeap(1.4, 16, 16), LastStep()
    for step in range(1, 80):
        if step == AT:
            detector.rebase()
        now = signals(step, leap=4.0)
        assert last.step is None or detector.observe(now, last) is None
        last.take(now)


@pytest.mark.parametrize("broken", ["loss", "grad_norm", "lr", "update_ratios"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_leap_is_told_as_ever_when_numbers_were_broken_before(broken: str, bad: float) -> None:
    def spoilt(step: int) -> StepSignals:
        now = signals(step, leap=4.0)
        if step % 5 or step > AT - 2 or (broken == "lr" and not math.isfinite(bad)):
            return now
        spoil: dict[str, Any] = {broken: dict.fromkeys(LAYERS, bad) if broken == "update_ratios" else bad}
        return replace(now, **spoil)

    assert list(told(spoilt)) == [AT + 2]


def of_layers(step: int, *, spike: float, spiking: tuple[str, ...] = LAYERS) -> StepSignals:
    """A leap of all updates; in the step whose update it is, those layers' gradients were `spike` times their normal.

    Their gradients are a thousandth of the embedding's: the whole one's norm shows nothing of it.
    """
    chance = random.Random(step)
    norms = {name: chance.lognormvariate(0, 0.2) * (1.0 if name == "embedding" else 1e-3) for name in LAYERS}
    if step == AT - 1:
        norms = {name: norm * (spike if name in spiking else 1.0) for name, norm in norms.items()}
    return replace(signals(step, leap=4.0), group_norms=norms)


@pytest.mark.parametrize("spike", [3.0, 1000.0])
def test_leap_is_silent_when_the_layers_own_gradients_made_it(spike: float) -> None:
    assert not told(lambda step: of_layers(step, spike=spike))
    blocks = LAYERS[1:4]
    assert not told(lambda step: of_layers(step, spike=spike, spiking=blocks)), "three of five are explained"


def test_leap_is_told_when_the_layers_gradients_are_as_they_were() -> None:
    assert list(told(lambda step: of_layers(step, spike=1.0))) == [AT + 2]
    assert list(told(lambda step: of_layers(step, spike=1.5))) == [AT + 2], "too little for a leap of 4"
    assert list(told(lambda step: of_layers(step, spike=1000.0, spiking=("head",)))) == [AT + 2]


def test_leap_is_told_after_a_state_without_the_layers_gradients() -> None:
    """The first checkpoints that had this state."""
    detector, last, found = MomentLeap(1.4, 16, 16), LastStep(), []
    for step in range(1, 60):
        now = of_layers(step, spike=1.0)
        if step == 30:
            state = {name: each for name, each in detector.state_dict().items() if "grads" not in name}
            detector = MomentLeap(1.4, 16, 16)
            detector.load_state_dict(state)
        if last.step is not None and detector.observe(now, last) is not None:
            found.append(step)
        last.take(now)
    assert found == [AT + 2]
