"""dead_layer: exactly zero gradients, and layers that have left the total."""

from minigpt.training_monitor.detectors.dead_layer import DeadLayer, DeadLayerConfig
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import (
    assert_resumes_exactly,
    assert_silent_when_not_finite,
    changed,
    healthy_step,
    summary,
    told,
)


def build() -> DeadLayer:
    return DeadLayer(DeadLayerConfig())


def zero(signals: StepSignals) -> StepSignals:
    return changed(signals, "blocks.1", grad_norms=0.0)


def faint(signals: StepSignals) -> StepSignals:
    return changed(signals, "blocks.1", grad_norms=lambda norm: norm / 2000)


def test_dead_layer_interrupts_at_the_fourth_step_when_a_block_gets_exact_zeros() -> None:
    findings = told(build(), 40, zero, since=20)
    assert summary(findings) == [
        ("dead_layer", "suspected", 20, False),
        ("dead_layer", "sustained", 23, True),
    ]
    assert (findings[-1].evidence["group"], findings[-1].evidence["count"]) == ("blocks.1", 3)


def test_dead_layer_names_the_group_when_its_share_falls_below_a_three_hundredth() -> None:
    findings = told(build(), 60, faint, since=40)
    assert summary(findings) == [
        ("dead_layer", "suspected", 40, False),
        ("dead_layer", "sustained", 43, True),
    ]
    assert findings[-1].evidence["group"] == "blocks.1"
    assert findings[-1].evidence["group_ratio"] < 1 / 300  # type: ignore[operator]


def test_dead_layer_speaks_when_a_share_fades_over_hundreds_of_steps() -> None:
    findings = told(
        build(),
        900,
        lambda signals: changed(
            signals, "blocks.1", grad_norms=lambda norm: norm * 0.985 ** (signals.step - 100)
        ),
        since=100,
    )
    assert [found.status for found in findings][-1] == "sustained"


def test_dead_layer_is_silent_when_zero_initialised_layers_hide_others_at_first() -> None:
    def hidden(signals: StepSignals) -> StepSignals:
        return changed(signals, ("blocks.0.query", "blocks.1.query", "blocks.2.query"), grad_norms=0.0)

    assert told(build(), 40, hidden, until=2) == []


def test_dead_layer_interrupts_when_a_block_is_dead_from_the_start() -> None:
    findings = told(build(), 40, zero)
    assert findings[-1].interrupts
    assert findings[-1].step == 6


def test_dead_layer_is_silent_when_a_head_is_never_used() -> None:
    assert told(build(), 40, lambda signals: changed(signals, "head", grad_norms=0.0)) == []


def test_dead_layer_is_silent_when_everything_is_zero_at_once() -> None:
    assert told(build(), 60, lambda signals: changed(signals, "", grad_norms=0.0), since=40) == []


def test_dead_layer_is_silent_when_another_layer_explodes_or_everything_fades() -> None:
    burst = told(
        build(),
        60,
        lambda signals: changed(signals, "blocks.0", grad_norms=lambda norm: norm * 1e5),
        since=40,
    )
    fade = told(
        build(), 60, lambda signals: changed(signals, "", grad_norms=lambda norm: norm / 1e5), since=40
    )
    assert (burst, fade) == ([], [])


def test_dead_layer_is_silent_when_rarely_used_parts_are_zero_now_and_then() -> None:
    detector = build()
    for step in range(1, 300):
        signals = healthy_step(step)
        if step % 7 in (0, 1, 2):
            signals = changed(signals, "blocks.1.up", grad_norms=0.0)
        assert not any(found.interrupts for found in detector.observe(signals))


def test_dead_layer_resumes_exactly() -> None:
    steps = [healthy_step(step) for step in range(1, 30)] + [
        zero(healthy_step(step)) for step in range(30, 38)
    ]
    steps += [faint(healthy_step(step)) for step in range(60, 70)]
    assert_resumes_exactly(build, [*steps, *map(healthy_step, range(70, 90))])
    assert_silent_when_not_finite(build)
