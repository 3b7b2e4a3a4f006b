"""gradient_scale_shift: one factor in all groups, at once, out of a settled norm, while the loss goes on."""

import math
import random
from collections.abc import Callable

import pytest

from minigpt.training_monitor.detectors.gradient_scale_shift import GradientScaleShift, ScaleShiftConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals

Number = Callable[[int], float]
"""step -> value"""
LAYERS = ("embedding", "blocks.0", "blocks.1", "head")
AT = 100


def told(
    factor: Number,
    *,
    loss: Number = lambda step: 3.0,
    one_layer: Number = lambda step: 1.0,
    tokens: Callable[[int], int] = lambda step: 512,
    noise: float = 0.1,
    steps: int = 190,
    rebase_at: int | None = None,
    groups: tuple[str, ...] = LAYERS,
    seed: int = 0,
) -> list[Finding]:
    detector, chance, found = GradientScaleShift(ScaleShiftConfig()), random.Random(seed), []
    for step in range(1, steps + 1):
        common = factor(step) * chance.lognormvariate(0, noise)
        norms = {name: common * chance.lognormvariate(0, 0.03) for name in groups}
        norms[groups[-1]] *= one_layer(step)
        if step == rebase_at:
            detector.rebase()
        total = math.hypot(*norms.values())
        value = loss(step) * chance.lognormvariate(0, 0.005)
        found += detector.observe(StepSignals(step, value, total, group_norms=norms, tokens=tokens(step)))
    return found


def shifts(factor: float, at: int = AT, until: int = 10**9) -> Number:
    return lambda step: factor if at <= step < until else 1.0


def turns(found: list[Finding]) -> list[tuple[str, int, bool]]:
    return [(each.status, each.step, each.interrupts) for each in found]


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_shift_interrupts_at_the_tenth_step_with_its_factor(factor: float) -> None:
    found = told(shifts(factor), steps=AT + 20)
    assert turns(found) == [("suspected", AT + 9, False), ("sustained", AT + 9, True)]
    assert found[-1].evidence["ratio"] == pytest.approx(factor, rel=0.15)
    assert found[-1].evidence["since"] == AT


def test_shift_is_silent_when_it_is_small_or_brief() -> None:
    assert told(shifts(2.1)) == []
    assert told(shifts(4.0, until=AT + 9)) == []


def test_shift_is_resolved_when_the_old_scale_is_back_and_the_new_normal_when_it_stays() -> None:
    assert turns(told(shifts(4.0, until=AT + 20)))[-1] == ("resolved", AT + 29, False)
    stays = told(shifts(4.0))
    assert turns(stays)[-1] == ("resolved", AT + 48, False)
    assert stays[-1].evidence["new_normal"] is True


def test_shift_only_notes_an_event_before_its_first_step() -> None:
    assert turns(told(shifts(4.0, at=30), steps=45)) == [("suspected", 39, False)]


def test_shift_is_silent_when_the_groups_moved_by_different_factors_or_are_too_few() -> None:
    assert told(shifts(4.0), one_layer=shifts(4.0)) == []
    assert told(shifts(4.0), groups=LAYERS[:2]) == []
    assert told(shifts(4.0), groups=LAYERS[:3])


def test_shift_is_silent_when_the_loss_moved_otherwise() -> None:
    assert told(shifts(4.0), loss=lambda step: 3.0 * shifts(1.5)(step)) == []
    assert told(shifts(4.0), loss=lambda step: 3.0 * shifts(0.7)(step)) == []


def test_shift_is_told_when_the_loss_is_scaled_by_the_very_factor() -> None:
    assert told(shifts(4.0), loss=lambda step: 3.0 * shifts(4.0)(step))


def test_shift_is_silent_when_the_norm_climbs_there() -> None:
    assert told(lambda step: min(4.0, 1.05 ** max(0, step - AT))) == []


def test_shift_is_silent_after_unrest() -> None:
    """A norm that was off now and then before is on its way; one odd step a while before is none."""

    def restless(step: int) -> float:
        return 4.0 if step >= AT or step in (AT - 14, AT - 10, AT - 7, AT - 4) else 1.0

    def odd(step: int) -> float:
        return 4.0 if step >= AT or step in (AT - 10, AT - 4) else 1.0

    assert told(restless) == []
    assert told(odd)
    assert told(lambda step: restless(step) if step < AT else shifts(4.0, at=AT + 30)(step)), (
        "all is calm again"
    )


def test_shift_is_silent_when_norms_differ_by_such_factors_from_batch_to_batch() -> None:
    assert told(shifts(3.0), noise=0.8) == []
    for seed in range(3):
        assert told(shifts(1.0), noise=0.8, seed=seed) == []


def test_shift_is_learnt_anew_when_a_step_has_other_tokens_or_a_change_was_declared() -> None:
    assert told(shifts(0.25), tokens=lambda step: 4096 if step >= AT else 512) == []
    assert told(shifts(0.25), tokens=lambda step: 600 if step >= AT else 512)
    assert told(shifts(0.25), rebase_at=AT) == []


def test_shift_needs_a_history() -> None:
    assert told(shifts(4.0, at=8)) == []
    assert told(shifts(4.0, at=18), steps=40)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_shift_is_told_as_ever_when_norms_were_broken(bad: float) -> None:
    assert turns(told(lambda step: bad if step % 9 == 1 and step < AT else shifts(4.0)(step)))[0] == (
        "suspected",
        AT + 9,
        False,
    )
