"""loss_collapse: too far, too fast, and beyond the loss's own noise and trend."""

import math
import random
from collections.abc import Callable

import pytest

from minigpt.training_monitor.detectors.loss_collapse import LossCollapse, LossCollapseConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

AT = 120


def told(
    loss: Callable[[int], float], *, noise: float = 0.02, steps: int = 200, warmup: int = 0, seed: int = 0
) -> list[Finding]:
    detector, chance, found = (
        LossCollapse(LossCollapseConfig(), RunFacts(warmup_steps=warmup)),
        random.Random(seed),
        [],
    )
    for step in range(1, steps + 1):
        found += detector.observe(StepSignals(step, loss(step) * chance.lognormvariate(0, noise), 1.0))
    return found


def falls_to(share: float, *, level: float = 3.0, until: int = 10**9) -> Callable[[int], float]:
    return lambda step: level * (share if AT <= step < until else 1.0)


def turns(found: list[Finding]) -> list[tuple[str, int, bool]]:
    return [(each.status, each.step, each.interrupts) for each in found]


def test_collapse_interrupts_at_the_fourth_step_when_the_loss_falls_to_a_tenth() -> None:
    found = told(falls_to(0.1))
    assert turns(found)[:2] == [("suspected", AT + 3, False), ("sustained", AT + 3, True)]
    assert found[1].evidence["normal"] == pytest.approx(3.0, rel=0.05)
    assert found[1].evidence["ratio"] == pytest.approx(0.1, rel=0.05)


def test_collapse_is_an_event_when_it_could_be_easier_data_and_nothing_when_it_is_less() -> None:
    assert [turn[0] for turn in turns(told(falls_to(0.5)))] == ["suspected", "transient"]
    assert not any(each.interrupts for each in told(falls_to(0.35)))
    assert told(falls_to(0.75)) == []


def test_collapse_is_the_new_normal_after_a_while() -> None:
    found = told(falls_to(0.1))
    assert found[-1].status == "resolved"
    assert (found[-1].step, found[-1].evidence["new_normal"]) == (AT + 40, True)


def test_collapse_is_silent_when_it_is_brief_and_resolved_when_the_loss_returns() -> None:
    assert told(falls_to(0.1, until=AT + 3)) == []
    assert turns(told(falls_to(0.1, until=AT + 10)))[-1] == ("resolved", AT + 13, False)


def test_collapse_is_silent_before_its_first_step_and_warm_up() -> None:
    def early(step: int) -> float:
        return 0.3 if 30 <= step < 45 else 3.0

    assert told(early) == []
    assert told(falls_to(0.1, until=AT + 15), warmup=140) == []


def test_collapse_is_silent_within_the_noise_of_single_samples() -> None:
    """A batch of one has losses that differ by factors: half of the normal, or a tenth, is nothing new there."""
    for seed in range(5):
        assert not any(each.interrupts for each in told(falls_to(0.25), noise=0.8, seed=seed))
        assert told(falls_to(1.0), noise=0.8, seed=seed) == []
    assert any(each.interrupts for each in told(falls_to(0.01), noise=0.4))


def test_collapse_is_silent_when_the_loss_goes_on_falling_as_fast_as_it_did() -> None:
    assert told(lambda step: 3.0 * 0.97**step) == []
    assert told(lambda step: 3.0 * 0.97 ** max(0, step - 60), noise=0.05) == []


def test_collapse_is_silent_when_the_task_was_solved() -> None:
    def solved(step: int) -> float:
        level = max(3.0 * 0.98**step, 0.4)
        return level * (0.05 if step >= 180 else 1.0)

    assert told(solved, steps=260) == []


def test_collapse_needs_a_positive_loss() -> None:
    assert told(lambda step: 3.0 if step < AT else -1.0) == []
    crossing = told(lambda step: 3.0 if step < AT else (0.3 if step < AT + 6 else 0.0))
    assert turns(crossing)[-1] == ("resolved", AT + 6, False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_collapse_is_told_as_ever_when_losses_were_broken(bad: float) -> None:
    assert turns(told(lambda step: bad if step % 7 == 1 and step < AT else falls_to(0.1)(step)))[1] == (
        "sustained",
        AT + 3,
        True,
    )
