"""unoptimized_parameter: what gets gradients belongs to an optimizer, unless somebody chose otherwise."""

from dataclasses import replace

from minigpt.training_monitor.detectors.unoptimized_parameter import (
    UnoptimizedParameter,
    UnoptimizedParameterConfig,
)
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    NAMES,
    Change,
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    facts_with,
    healthy_step,
    summary,
    told,
    with_parameters,
)


def build() -> UnoptimizedParameter:
    return UnoptimizedParameter(UnoptimizedParameterConfig())


def without(*prefixes: str, still: bool = True) -> Change:
    facts = facts_with(left_out=prefixes)

    def change(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        signals = with_parameters(signals, replace(signals.parameters, facts=facts))
        return changed(signals, prefixes, update_norms=0.0) if still else signals

    return change


def test_unoptimized_parameter_interrupts_at_the_second_step_when_a_block_was_forgotten() -> None:
    findings = told(build(), 20, without("blocks.1"))
    assert summary(findings) == [
        ("unoptimized_parameter", "suspected", 1, False),
        ("unoptimized_parameter", "sustained", 2, True),
    ]
    assert (findings[-1].evidence["group"], findings[-1].evidence["count"]) == ("blocks.1", 3)


def test_unoptimized_parameter_is_silent_when_only_a_head_is_meant_to_train() -> None:
    assert told(build(), 20, without("embedding", "blocks", "norm")) == []


def test_unoptimized_parameter_interrupts_when_all_scales_were_forgotten() -> None:
    scales = tuple(name for name in NAMES if "norm" in name)
    assert told(build(), 20, without(*scales))[-1].interrupts


def test_unoptimized_parameter_interrupts_when_most_of_the_model_leaves_the_optimizer_in_mid_run() -> None:
    change = without("embedding", "blocks", "norm")
    findings = told(build(), 20, change, since=10)
    assert (findings[-1].step, findings[-1].interrupts) == (11, True)


def test_unoptimized_parameter_does_not_interrupt_when_an_unknown_optimizer_moves_it() -> None:
    findings = told(build(), 20, without("blocks.1", still=False))
    assert [found.status for found in findings] == ["suspected", "transient"]


def test_unoptimized_parameter_is_silent_when_copies_get_no_gradient() -> None:
    def copies(signals: StepSignals) -> StepSignals:
        left_out = without("blocks.0")
        return changed(left_out(signals), "blocks.0", grad_norms=None)

    assert told(build(), 20, copies) == []


def test_unoptimized_parameter_is_silent_when_the_optimizers_are_unknown() -> None:
    def unknown(signals: StepSignals) -> StepSignals:
        assert signals.parameters is not None
        facts = replace(signals.parameters.facts, optimized=None)
        return replace(signals, parameters=replace(signals.parameters, facts=facts))

    assert told(build(), 20, unknown) == []


def test_unoptimized_parameter_accepts_what_was_declared() -> None:
    detector, change = build(), without("blocks.1")
    detector.observe(change(healthy_step(1)))
    detector.rebase()
    later = [found for step in range(2, 20) for found in detector.observe(change(healthy_step(step)))]
    assert [found.status for found in later] == ["transient"]


def test_unoptimized_parameter_resumes_exactly() -> None:
    change = without("blocks.1")
    steps = [change(healthy_step(step)) for step in range(1, 20)]
    assert_resumes_exactly(build, [*steps, *map(healthy_step, range(20, 25))])
    assert_silent_when_not_finite(build)
