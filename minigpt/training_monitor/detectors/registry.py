"""All detectors by name of their configuration."""

from collections.abc import Callable

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.detector import Detector
from minigpt.training_monitor.detectors.gradient_exploding import GradientExploding
from minigpt.training_monitor.detectors.gradient_vanishing import GradientVanishing
from minigpt.training_monitor.detectors.loss_spike import LossSpike
from minigpt.training_monitor.detectors.non_finite import NonFinite
from minigpt.training_monitor.run_facts import RunFacts

DETECTORS: dict[str, Callable[[MonitorConfig, RunFacts], Detector]] = {
    "non_finite": lambda config, facts: NonFinite(config),
    "gradient_vanishing": lambda config, facts: GradientVanishing(config, facts.warmup_steps),
    "gradient_exploding": lambda config, facts: GradientExploding(config),
    "loss_spike": lambda config, facts: LossSpike(config),
}


def build_detectors(config: MonitorConfig, facts: RunFacts) -> dict[str, Detector]:
    """Every detector whose rule is enabled."""
    return {name: build(config, facts) for name, build in DETECTORS.items() if getattr(config, name).enabled}
