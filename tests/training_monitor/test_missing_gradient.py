"""missing_gradient: cut graphs and frozen parameters, and what only looks like them."""

from dataclasses import replace

from minigpt.training_monitor.detectors.missing_gradient import MissingGradient, MissingGradientConfig
from minigpt.training_monitor.parameter_signals import ParameterSignals
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    facts_with,
    healthy_step,
    heard,
    summary,
    told,
    with_parameters,
)

BELOW = ("embedding", "blocks.0", "blocks.1")


def build() -> MissingGradient:
    return MissingGradient(MissingGradientConfig())


def cut(signals: StepSignals) -> StepSignals:
    return changed(signals, BELOW, grad_norms=None)


def with_facts(signals: StepSignals, **changes: tuple[str, ...]) -> StepSignals:
    assert signals.parameters is not None
    return with_parameters(signals, replace(signals.parameters, facts=facts_with(**changes)))


def test_missing_gradient_interrupts_and_names_the_cut_when_a_path_is_detached() -> None:
    findings = told(build(), 30, cut, since=20)
    assert summary(findings) == [
        ("missing_gradient", "suspected", 20, False),
        ("missing_gradient", "sustained", 22, True),
    ]
    evidence = findings[-1].evidence
    assert (evidence["group"], evidence["count"], evidence["since"]) == ("blocks.1", 7, 20)
    assert evidence["trainable"] is True


def test_missing_gradient_interrupts_when_a_path_is_detached_from_the_start() -> None:
    (_, sustained) = told(build(), 30, cut)
    assert (sustained.status, sustained.step) == ("sustained", 3)


def test_missing_gradient_says_so_when_nothing_ever_gets_a_gradient() -> None:
    findings = told(build(), 10, lambda signals: changed(signals, "", grad_norms=None))
    assert findings[-1].interrupts
    assert findings[-1].evidence["count"] == 12


def test_missing_gradient_says_frozen_when_requires_grad_is_switched_off() -> None:
    def freeze(signals: StepSignals) -> StepSignals:
        return changed(with_facts(signals, frozen=("blocks.1",)), "blocks.1", grad_norms=None)

    findings = told(build(), 40, freeze, since=20)
    assert findings[-1].interrupts
    assert findings[-1].evidence["trainable"] is False


def test_missing_gradient_is_silent_when_the_freeze_was_declared() -> None:
    detector = build()
    for step in range(1, 40):
        signals = healthy_step(step)
        if step >= 20:
            signals = changed(with_facts(signals, frozen=("blocks.1",)), "blocks.1", grad_norms=None)
        findings = detector.observe(signals)
        if step == 20:
            detector.rebase()
        assert not any(found.interrupts for found in findings)


def test_missing_gradient_is_silent_when_frozen_from_the_start_and_set_free() -> None:
    def frozen(signals: StepSignals) -> StepSignals:
        return changed(with_facts(signals, frozen=("embedding", "blocks.0")), BELOW[:2], grad_norms=None)

    assert told(build(), 60, frozen, until=30) == []


def test_missing_gradient_is_silent_when_a_head_is_never_used() -> None:
    assert told(build(), 60, lambda signals: changed(signals, "head", grad_norms=None)) == []


def test_missing_gradient_is_silent_when_a_copy_is_in_no_optimizer() -> None:
    def copy(signals: StepSignals) -> StepSignals:
        return changed(with_facts(signals, left_out=("embedding", "blocks.0")), BELOW[:2], grad_norms=None)

    assert told(build(), 60, copy) == []


def test_missing_gradient_never_interrupts_when_experts_come_and_go() -> None:
    detector = build()
    for step in range(1, 400):
        expert = f"blocks.{(step // 2) % 3}.up"
        findings = detector.observe(changed(healthy_step(step), expert, grad_norms=None))
        assert not any(found.interrupts for found in findings)


def test_missing_gradient_is_transient_when_the_gradient_comes_back() -> None:
    findings = told(build(), 40, cut, since=20, until=21)
    assert [found.status for found in findings] == ["suspected", "transient"]


def test_missing_gradient_watches_the_groups_when_parameters_are_unknown() -> None:
    detector, findings = build(), []
    for step in range(10, 300, 10):
        signals = healthy_step(step)
        kept = {name: norm for name, norm in signals.group_norms.items() if step < 150 or name != "blocks.0"}
        findings += detector.observe(replace(signals, parameters=None, group_norms=kept))
    assert [(found.status, found.step) for found in findings] == [("suspected", 150), ("sustained", 170)]
    assert findings[-1].evidence["group"] == "blocks.0"


def test_missing_gradient_resumes_exactly() -> None:
    steps = [healthy_step(step) for step in range(1, 20)] + [
        cut(healthy_step(step)) for step in range(20, 30)
    ]
    assert_resumes_exactly(build, [*steps, *map(healthy_step, range(30, 50))])
    assert_silent_when_not_finite(build)


def test_missing_gradient_is_silent_when_the_optimizers_are_unknown_and_a_head_unused() -> None:
    facts = replace(facts_with(), optimized=None)

    def unknown(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        parameters = ParameterSignals(facts, signals.parameters.grad_norms)
        return changed(replace(signals, parameters=parameters), "head", grad_norms=None)

    assert told(build(), 30, unknown) == []


EXPERTS = (
    "embedding.weight",
    *(f"blocks.{block}.experts.{i}.weight" for block in range(2) for i in range(4)),
)


def test_missing_gradient_is_silent_when_a_router_leaves_an_expert_out_for_ever() -> None:
    def left_out(signals: StepSignals) -> StepSignals:
        return changed(signals, "blocks.1.experts.2", grad_norms=None)

    facts = facts_with(names=EXPERTS)
    detector = build()
    steps = [healthy_step(step, facts) for step in range(1, 60)]
    assert heard(detector, (left_out(each) if each.step > 20 else each for each in steps)) == []
    cut_off = [changed(healthy_step(step, facts), "blocks.1", grad_norms=None) for step in range(60, 70)]
    findings = heard(detector, cut_off)
    assert findings[-1].interrupts


def test_missing_gradient_interrupts_late_when_every_layer_has_a_part_without_gradient() -> None:
    findings = told(
        build(),
        40,
        lambda signals: changed(
            signals, ("blocks.0.query", "blocks.1.query", "blocks.2.query"), grad_norms=None
        ),
    )
    assert (findings[-1].step, findings[-1].interrupts) == (18, True)


def test_missing_gradient_is_found_when_a_change_was_declared_before_and_all_went_on() -> None:
    detector, findings = build(), []
    for step in range(1, 60):
        if step == 20:
            detector.rebase()
        signals = healthy_step(step)
        findings += detector.observe(cut(signals) if step >= 40 else signals)
    assert summary(findings) == [
        ("missing_gradient", "suspected", 40, False),
        ("missing_gradient", "sustained", 42, True),
    ]
