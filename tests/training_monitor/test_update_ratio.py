"""update_ratio_high and update_ratio_low: against a limit, against the run's own normal, and against its noise."""

import math
import random
from collections.abc import Callable

import pytest

from minigpt.training_monitor.detectors.update_ratio import UpdateRatio
from minigpt.training_monitor.detectors.update_ratio_config import UpdateRatioConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

Number = Callable[[int], float]
"""step -> value"""
LAYERS = ("embedding", "blocks.0", "blocks.1", "blocks.2")
AT = 100


def told(
    ratio: Number,
    *,
    lr: Number = lambda step: 1e-3,
    norm: Number = lambda step: 1.0,
    embedding: Number | None = None,
    noise: float = 0.05,
    steps: int = 160,
    facts: RunFacts | None = None,
    seed: int = 0,
) -> list[Finding]:
    """Groups whose updates have this ratio, the noise being that of whole steps (SGD on single samples)."""
    detector, chance, found = UpdateRatio(UpdateRatioConfig(), facts or RunFacts()), random.Random(seed), []
    for step in range(1, steps + 1):
        shaken = ratio(step) * chance.lognormvariate(0, noise)
        ratios = {name: shaken * chance.lognormvariate(0, 0.02) for name in LAYERS}
        if embedding is not None:
            ratios["embedding"] = embedding(step)
        found += detector.observe(StepSignals(step, 3.0, norm(step), lr(step), update_ratios=ratios))
    return found


def from_onset(factor: float, normal: float = 0.005, until: int = 10**9) -> Number:
    return lambda step: normal * (factor if AT <= step < until else 1.0)


def interrupting(found: list[Finding]) -> list[tuple[str, int]]:
    return [(each.name, each.step) for each in found if each.interrupts]


def test_high_is_told_at_the_third_step_when_updates_rise_above_their_own_normal() -> None:
    assert interrupting(told(from_onset(10.0))) == [("update_ratio_high", AT + 2)]


def test_high_is_silent_when_the_rise_is_too_small_too_brief_or_harmless() -> None:
    assert told(from_onset(6.0)) == []
    assert told(from_onset(10.0, until=AT + 2)) == []
    assert told(from_onset(10.0, normal=5e-4)) == [], "no more than healthy runs have"


def test_high_is_silent_when_the_rise_is_within_the_noise_of_the_run() -> None:
    """Single samples shake the typical ratio by factors: eight times the normal is a matter of hours."""
    for seed in range(3):
        assert interrupting(told(from_onset(10.0), noise=0.7, seed=seed)) == []
    assert interrupting(told(from_onset(10.0), noise=0.2))


def test_high_is_silent_when_the_learning_rate_rose_as_much() -> None:
    rate = from_onset(10.0, normal=1e-3)
    # The ratio seen at a step is of the update before, at the rate of that step.
    ratio = from_onset(10.0, normal=0.004)
    facts = RunFacts(resumed=True)  # what the peak of the rate was is not known then
    assert told(lambda step: ratio(step - 1), lr=rate, facts=facts) == []


def rate_after_its_peak(step: int) -> float:
    """Decays from step 20 to a half, then stands at four times its former peak."""
    return 4e-3 if step >= AT else 1e-3 * max(0.5, 1 - max(0, step - 20) / 60)


def test_high_is_told_when_the_rate_goes_far_beyond_its_former_peak() -> None:
    def ratio(step: int) -> float:
        return 4 * rate_after_its_peak(step - 1)

    assert interrupting(told(ratio, lr=rate_after_its_peak)) == [("update_ratio_high", AT + 3)]
    assert told(ratio, lr=rate_after_its_peak, facts=RunFacts(resumed=True)) == []


def test_high_is_silent_when_a_restart_returns_to_the_peak_or_a_warm_up_is_on_its_way() -> None:
    def restart(step: int) -> float:
        return min(rate_after_its_peak(step), 1e-3)

    def warm_up(step: int) -> float:
        return 2e-5 * step

    assert told(lambda step: 20 * restart(step - 1), lr=restart) == []
    assert told(lambda step: 10 * warm_up(step - 1) + 1e-6, lr=warm_up) == []


def test_high_is_told_by_the_limit_alone_which_is_wider_in_the_first_steps() -> None:
    assert interrupting(told(lambda step: 0.2, steps=40)) == [("update_ratio_high", 23)]
    early = told(lambda step: 0.5 if step >= 5 else 0.005, steps=15)
    assert interrupting(early) == [("update_ratio_high", 7)]
    assert told(lambda step: 0.12, steps=60) == []


def test_high_is_told_of_an_embedding_only_when_it_is_far_above_the_limit() -> None:
    def embedding(value: float) -> Number:
        return lambda step: value if step >= AT else 0.005

    assert told(lambda step: 0.005, embedding=embedding(0.2)) == []
    found = told(lambda step: 0.005, embedding=embedding(0.3))
    assert interrupting(found) == [("update_ratio_high", AT + 2)]
    assert found[-1].evidence["parameter"] == "embedding"


def test_high_ends_after_normal_steps_and_becomes_normal_when_it_stays() -> None:
    brief = told(from_onset(10.0, until=AT + 10))
    assert [(each.status, each.step) for each in brief] == [
        ("suspected", AT + 2),
        ("sustained", AT + 2),
        ("resolved", AT + 10 + 15),
    ]
    stays = told(from_onset(10.0), steps=260)
    assert [each.status for each in stays] == ["suspected", "sustained", "resolved"]
    assert stays[-1].step > AT + 60


def test_low_is_told_after_fifteen_steps_when_updates_fall_and_gradients_do_not() -> None:
    found = told(from_onset(1 / 50))
    assert [(each.name, each.status, each.step) for each in found] == [
        ("update_ratio_low", "suspected", AT),
        ("update_ratio_low", "sustained", AT + 14),
    ]
    assert told(from_onset(1 / 20)) == []


def test_low_is_silent_when_smaller_gradients_or_a_smaller_rate_explain_it() -> None:
    assert told(from_onset(1 / 50), norm=lambda step: 0.05 if step >= AT - 1 else 1.0) == []
    decayed = from_onset(1 / 50, normal=1e-3)
    assert told(lambda step: 5 * decayed(step - 1), lr=decayed) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_steps_change_nothing(bad: float) -> None:
    def norm(step: int) -> float:
        return bad if step % 10 == 5 else 1.0

    assert [each.name for each in told(from_onset(10.0), norm=norm) if each.interrupts] == [
        "update_ratio_high"
    ]
    assert told(lambda step: bad if step % 10 == 5 else 0.005) == []
