"""loss_spike: the loss leaps above its own normal and stays there."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.detectors.spike import ExplodingConfig, SpikeRule
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LossSpikeConfig(ExplodingConfig):
    """When a loss far above its own recent normal is called loss_spike: losses are quieter than norms."""

    rule: ClassVar[str] = "loss_spike"

    # Repeated in full: pydantic reads the docstrings of a class's own fields only.
    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    min_history: int = 16
    """Accepted values needed before anything can be called unusual."""
    z_score: float = 6.0
    """Robust standard deviations (1.4826 MAD, log space) above the short median that count as unusual."""
    min_ratio: float = 1.04
    """And this many times the short median: an effect that matters, not only an improbable one."""
    min_sigma: float = 0.02
    """Floor of the standard deviation (log space), so that a very quiet run does not cry wolf."""
    persist_steps: int = 8
    """Unusual steps in a row that make a spike sustained; fewer are transient."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    close_z_score: float = 3.0
    """Normal again means below this many standard deviations."""
    readmit_steps: int = 40
    """Unusual steps in a row after which the new level is the new normal."""


class LossSpike:
    """A spike of the loss."""

    def __init__(self, config: LossSpikeConfig) -> None:
        self._rule = SpikeRule("loss_spike", config)

    def observe(self, signals: StepSignals) -> list[Finding]:
        return self._rule.observe(signals.step, signals.loss, grad_norm=signals.grad_norm)

    def rebase(self) -> None:
        self._rule.rebase()

    def state_dict(self) -> dict[str, Any]:
        return self._rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rule.load_state_dict(state)
