"""All rules by the name of their configuration: a new detector is its own file and one entry here."""

from collections.abc import Callable
from typing import NamedTuple

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.detector import Detector
from minigpt.training_monitor.detectors.gradient_exploding import GradientExploding
from minigpt.training_monitor.detectors.gradient_vanishing import GradientVanishing
from minigpt.training_monitor.detectors.loss_spike import LossSpike
from minigpt.training_monitor.detectors.non_finite import NonFinite
from minigpt.training_monitor.run_facts import RunFacts


class Rule(NamedTuple):
    """A detector, what it may say, and the signals without which it can say nothing."""

    build: Callable[[MonitorConfig, RunFacts], Detector]
    findings: tuple[str, ...]
    needs: tuple[str, ...]
    """Fields of StepSignals."""


RULES: dict[str, Rule] = {
    "non_finite": Rule(
        lambda config, facts: NonFinite(config.non_finite), ("nan_loss", "non_finite_gradient"), ("loss",)
    ),
    "gradient_vanishing": Rule(
        lambda config, facts: GradientVanishing(config.gradient_vanishing, facts.warmup_steps),
        ("gradient_vanishing",),
        ("grad_norm",),
    ),
    "gradient_exploding": Rule(
        lambda config, facts: GradientExploding(config.gradient_exploding),
        ("gradient_exploding",),
        ("grad_norm",),
    ),
    "loss_spike": Rule(lambda config, facts: LossSpike(config.loss_spike), ("loss_spike",), ("loss",)),
}


def build_detectors(config: MonitorConfig, facts: RunFacts) -> dict[str, Detector]:
    """Every detector whose rule is enabled."""
    return {name: rule.build(config, facts) for name, rule in RULES.items() if getattr(config, name).enabled}
