"""loss_spike: the loss leaps above its own normal and stays there."""

from typing import Any

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.spike import SpikeRule
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals


class LossSpike:
    """A spike of the loss."""

    def __init__(self, config: MonitorConfig) -> None:
        self._rule = SpikeRule("loss_spike", config.loss_spike)

    def observe(self, signals: StepSignals) -> list[Finding]:
        return self._rule.observe(signals.step, signals.loss, grad_norm=signals.grad_norm)

    def state_dict(self) -> dict[str, Any]:
        return self._rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rule.load_state_dict(state)
