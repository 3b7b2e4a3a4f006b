"""forward_growth: growth alone is noted, and interrupts when the training suffers or the growth is enormous."""

from collections.abc import Callable

import pytest

from minigpt.training_monitor.detectors.forward_growth import ForwardGrowth
from minigpt.training_monitor.detectors.forward_growth_config import ForwardGrowthConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

Number = Callable[[int], float]
"""step -> value"""


def standing(step: int) -> float:
    return 2.0 + 0.02 * (step % 3)


def told(
    activation: Number = lambda step: 1.0,
    *,
    loss: Number = standing,
    norm: Number = lambda step: 1.0,
    logits: Number = lambda step: 3.0,
    branch: Number = lambda step: 1.0,
    steps: range = range(1, 301),
) -> list[Finding]:
    """A look every tenth step at two blocks, a branch and the outputs."""
    detector = ForwardGrowth(ForwardGrowthConfig(), RunFacts(warmup_steps=20))
    found = []
    for step in steps:
        values = {"blocks.0": activation(step), "blocks.1": activation(step), "branch": branch(step)}
        look = Look(activation_rms=values, output_logit_rms=logits(step)) if step % 10 == 0 else None
        found += detector.observe(StepSignals(step, loss(step), norm(step), 1e-3, look=look))
    return found


def grows(step: int) -> float:
    """From 1 at step 150 to 38."""
    return 1.0 + max(0, step - 150) / 4


@pytest.mark.parametrize(
    ("loss", "norm", "told_of"),
    [
        (standing, lambda step: 1.0, False),
        (lambda step: standing(step) * (1.0 if step < 150 else 1.3), lambda step: 1.0, True),
        (standing, lambda step: 1.0 if step < 150 else 5.0, True),
        (
            lambda step: standing(step) * (1.0 if step < 150 else 0.9),
            lambda step: 1.0 if step < 150 else 5.0,
            False,
        ),
    ],
    ids=["alone", "loss above its best", "gradients moved", "gradients moved while learning"],
)
def test_activation_growth_interrupts_when_the_training_suffers(
    loss: Number, norm: Number, told_of: bool
) -> None:
    found = [finding for finding in told(grows, loss=loss, norm=norm) if finding.name == "activation_growth"]
    assert found[0].status == "suspected"
    assert any(finding.interrupts for finding in found) is told_of


@pytest.mark.parametrize("grown", [400.0, 5000.0])
def test_activation_growth_interrupts_when_it_is_far_out_though_it_stands_still(grown: float) -> None:
    found = told(lambda step: 1.0 if step < 150 else grown)
    assert [finding.name for finding in found if finding.interrupts] == ["activation_growth"]


def test_activation_growth_does_not_interrupt_when_a_step_up_stands_still() -> None:
    found = told(lambda step: 1.0 if step < 150 else 30.0, loss=lambda step: 2.0 if step < 150 else 3.0)
    assert [finding.status for finding in found] == ["suspected"]


def test_activation_growth_is_silent_when_the_activations_grew_while_the_loss_fell() -> None:
    found = told(lambda step: 0.2 * 1.02 ** min(step, 250), loss=lambda step: 6.0 * 0.99 ** min(step, 250))
    assert not found


def test_activation_growth_is_silent_when_a_branch_that_began_near_zero_reaches_the_others() -> None:
    assert not told(branch=lambda step: 0.001 if step < 150 else 1.0)


def test_growth_is_measured_from_the_first_look_when_the_second_was_bad_already() -> None:
    late = range(100, 301)  # a monitor attached to a trained model: one good look, then the fault
    found = told(lambda step: 1.0 if step <= 100 else 500.0, steps=late)
    assert [finding.name for finding in found if finding.interrupts] == ["activation_growth"]


def test_growth_is_not_measured_from_the_first_look_when_the_model_was_untrained() -> None:
    assert not told(lambda step: 0.01 if step < 30 else 1.0)


def test_output_logit_growth_interrupts_when_the_loss_left_its_best() -> None:
    def logits(step: int) -> float:
        return 3.0 + max(0, step - 150)

    assert not any(f.interrupts for f in told(logits=logits, steps=range(1, 281)))
    suffering = told(logits=logits, loss=lambda step: 2.0 if step < 150 else 3.0)
    assert [f.name for f in suffering if f.interrupts] == ["output_logit_growth"]


def test_rule_tells_the_same_when_resumed_in_the_middle() -> None:
    def series() -> list[StepSignals]:
        return [
            StepSignals(
                step,
                standing(step) * (1.0 if step < 150 else 1.3),
                1.0,
                1e-3,
                look=Look(activation_rms={"blocks.0": grows(step)}) if step % 10 == 0 else None,
            )
            for step in range(1, 301)
        ]

    def build() -> ForwardGrowth:
        return ForwardGrowth(ForwardGrowthConfig(), RunFacts(warmup_steps=20))

    first, whole = build(), build()
    expected = [f for step in series() for f in whole.observe(step)]
    found = [f for step in series()[:200] for f in first.observe(step)]
    second = build()
    second.load_state_dict(first.state_dict())
    found += [f for step in series()[200:] for f in second.observe(step)]
    assert found == expected != []
