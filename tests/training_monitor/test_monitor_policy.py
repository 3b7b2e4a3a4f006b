"""What the policy makes of findings: nothing by default, one answer an incident when asked."""

import math
from typing import Any

import pytest

from minigpt.training_monitor.action import Action, Continue, RollBack, ScaleLearningRate, SkipUpdate, Stop
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.finding import Finding, Status
from minigpt.training_monitor.overflow import Fp16Config
from minigpt.training_monitor.policy import Policy
from minigpt.training_monitor.policy_config import ACTED_UPON, HARMLESS, OTHERS, STRUCTURAL, PolicyConfig
from minigpt.training_monitor.signals import StepSignals


def policy_of(**settings: Any) -> Policy:
    return Policy(PolicyConfig(**settings), Fp16Config(), "en")


def finding(name: str, status: Status, opened_at: int, step: int, *, interrupts: bool = False) -> Finding:
    return Finding(name, status, opened_at, step, step - opened_at + 1, interrupts)


def healthy(step: int, norm: float = 1.0) -> StepSignals:
    return StepSignals(step, 3.0, norm)


SUSPECTED = finding("loss_spike", "suspected", 101, 101)
SUSTAINED = finding("loss_spike", "sustained", 101, 108, interrupts=True)


@pytest.mark.parametrize(
    ("on_sustained", "wanted"),
    [("continue", Continue), ("lower_lr", ScaleLearningRate), ("rollback", RollBack), ("stop", Stop)],
)
def test_sustained_finding_is_answered_as_asked(on_sustained: str, wanted: type[Action]) -> None:
    policy = policy_of(on_sustained=on_sustained)
    assert policy.decide(healthy(101), [SUSPECTED]) == Continue()
    action = policy.decide(healthy(108), [SUSTAINED])
    assert type(action) is wanted
    if isinstance(action, ScaleLearningRate):
        assert (action.factor, action.steps, action.rewarm_steps) == (0.5, 200, 100)
    if isinstance(action, RollBack | Stop):
        assert "loss_spike since step 101" in action.reason
        assert f"on_sustained={on_sustained}" in action.reason


def test_finding_outside_act_on_is_only_told() -> None:
    policy = policy_of(on_sustained="stop", act_on=("gradient_exploding",))
    assert policy.decide(healthy(108), [SUSTAINED]) == Continue()


def test_rollback_goes_before_the_first_sign_when_several_findings_are_one_trouble() -> None:
    policy = policy_of(on_sustained="rollback")
    old = finding("label_mismatch", "suspected", 3, 3)
    first = finding("gradient_exploding", "suspected", 97, 97)
    for each in (old, first):
        policy.decide(healthy(each.step), [each])
    action = policy.decide(healthy(108), [SUSTAINED])
    assert isinstance(action, RollBack)
    assert action.opened_at == 97


def test_incident_is_answered_once_and_the_next_one_again() -> None:
    policy = policy_of(on_sustained="lower_lr")
    assert isinstance(policy.decide(healthy(108), [SUSTAINED]), ScaleLearningRate)
    same = finding("gradient_exploding", "sustained", 104, 112, interrupts=True)
    assert policy.decide(healthy(112), [same]) == Continue()
    at_work = finding("loss_divergence", "sustained", 300, 305, interrupts=True)
    later = finding("gradient_exploding", "sustained", 309, 316, interrupts=True)
    restored = policy_of(on_sustained="lower_lr")
    restored.load_state_dict(policy.state_dict())
    assert restored.decide(healthy(112), [same]) == Continue()
    assert restored.decide(healthy(305), [at_work]) == Continue()
    assert isinstance(restored.decide(healthy(316), [later]), ScaleLearningRate)


def test_structural_fault_stops_only_when_asked_and_is_never_rolled_back() -> None:
    broken = finding("missing_gradient", "suspected", 5, 5, interrupts=True)
    assert policy_of(on_sustained="rollback").decide(healthy(5), [broken]) == Continue()
    action = policy_of(on_structural="stop").decide(healthy(5), [broken])
    assert isinstance(action, Stop)
    assert action.cause == "missing_gradient"
    assert policy_of(on_structural="stop").decide(healthy(108), [SUSTAINED]) == Continue()


def test_exact_finding_that_cannot_last_is_answered_at_once() -> None:
    jump = finding("weight_jump", "suspected", 50, 50, interrupts=True)
    assert isinstance(policy_of(on_sustained="rollback").decide(healthy(50), [jump]), RollBack)
    nan = finding("nan_loss", "suspected", 50, 50, interrupts=True)
    assert not isinstance(policy_of(on_sustained="rollback").decide(healthy(50), [nan]), RollBack)


def test_rollback_comes_before_the_budget_of_skipped_updates() -> None:
    policy = policy_of(on_sustained="rollback", max_skips_in_a_row=3)
    bad = [StepSignals(step, math.nan, math.nan, update_skipped=True) for step in (1, 2, 3)]
    assert [type(policy.decide(step, [])) for step in bad[:2]] == [SkipUpdate] * 2
    lasts = finding("nan_loss", "sustained", 1, 3, interrupts=True)
    assert isinstance(policy.decide(bad[2], [lasts]), RollBack)
    lower = policy_of(on_sustained="lower_lr", max_skips_in_a_row=1)
    assert isinstance(lower.decide(bad[2], [lasts]), Stop)


def test_trouble_lasts_from_its_first_sign_to_its_end() -> None:
    policy = policy_of()
    policy.decide(healthy(90), [finding("throughput_drop", "sustained", 80, 90)])
    policy.decide(healthy(91), [finding("frozen_parameter", "sustained", 1, 91)])
    since = [policy.trouble_since]
    over = finding("loss_spike", "resolved", 101, 140)
    for each in (SUSPECTED, SUSTAINED, over):
        policy.decide(healthy(each.step), [each])
        since.append(policy.trouble_since)
    assert since == [None, 101, 101, None]


def noisy(step: int) -> float:
    return 1.0 + 0.1 * math.sin(7 * step)


def test_bound_on_the_norm_stands_before_the_step_and_comes_from_steps_that_are_known() -> None:
    policy = policy_of(skip_spikes=True)
    for step in range(1, 34):
        policy.decide(healthy(step, noisy(step)), [])
    # 32 norms known by step 32; the bound from them is the one of step 34.
    assert policy.skip_above(33) is None
    bound = policy.skip_above(34)
    assert bound is not None
    # Six standard deviations of at least 0.1 in log space: e^0.6 at the very least.
    assert 1.8 < bound < 3
    early = policy.skip_above(35)
    policy.decide(healthy(34, 1.05), [])
    assert policy.skip_above(35) == early
    assert policy_of().skip_above(34) is None


def test_spike_is_skipped_without_costing_the_budget_and_at_most_one_step_in_a_hundred() -> None:
    policy = policy_of(skip_spikes=True, max_skips_in_a_row=1)
    skipped = 0
    for step in range(1, 201):
        bound = policy.skip_above(step)
        norm = noisy(step) if step < 100 else 50.0
        skip = bound is not None and norm > bound
        action = policy.decide(StepSignals(step, 3.0, norm, update_skipped=skip), [])
        assert isinstance(action, SkipUpdate) == skip
        skipped += skip
        if step == 150:
            # The new level is the normal one by now.
            assert bound is None
    # Five of 500, and one more that was under way when the fifth was counted.
    assert skipped in (5, 6)


def test_gate_goes_on_the_same_when_restored() -> None:
    def bounds(policy: Policy, steps: range) -> list[float | None]:
        found = []
        for step in steps:
            found.append(policy.skip_above(step))
            skip = found[-1] is not None and step % 60 == 0
            policy.decide(StepSignals(step, 3.0, 9.0 if skip else noisy(step), update_skipped=skip), [])
        return found

    straight, before, after = (policy_of(skip_spikes=True) for _ in range(3))
    expected = bounds(straight, range(1, 200))
    first = bounds(before, range(1, 121))
    after.load_state_dict(before.state_dict())
    assert first + bounds(after, range(121, 200)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"on_sustained": "panic"},
            r"policy\.on_sustained = panic must be one of continue, lower_lr, rollback, stop",
        ),
        ({"on_structural": "rollback"}, r"policy\.on_structural = rollback must be continue or stop"),
        ({"lower_lr_factor": 1.5}, r"policy\.lower_lr_factor = 1\.5 must be between 0 and 1"),
        ({"max_rollbacks": -1}, r"policy\.max_rollbacks = -1 must be >= 0"),
        ({"skip_spikes_z_score": 1}, r"policy\.skip_spikes_z_score = 1 must be >= 3"),
        ({"act_on": ("loss_spkie",)}, r"policy\.act_on = \['loss_spkie'\] must be names out of .*loss_spike"),
        ({"act_on": ("missing_gradient",)}, r"without missing_gradient, a fault that no action mends"),
    ],
)
def test_wrong_setting_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        PolicyConfig(**settings)
    assert "\n" not in str(caught.value)


def test_every_finding_has_its_place_in_the_policy() -> None:
    places = (set(ACTED_UPON), STRUCTURAL, HARMLESS, OTHERS)
    named = {name for rule in RULES.values() for name in rule.findings}
    assert [name for name in named if sum(name in place for place in places) != 1] == []
