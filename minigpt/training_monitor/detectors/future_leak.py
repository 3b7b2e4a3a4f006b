"""future_leak: a language model whose answers before a token depend on that token: it reads what it should predict."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class FutureLeakConfig:
    """When a causal language model is said to see the future, and when that is looked at."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    max_influence: float = 3e-4
    """What the last token of a sequence may move before it, as a share of what it moves at its own place. With a mask
    it is exactly 0 in every precision (attention, state space models), or rounding (long convolutions by FFT: below
    1e-5); without one the smallest seen, at the first step over 512 tokens, was 3e-3."""
    again_below: float = 0.8
    """Looked at once more when the loss has fallen below this fraction of what it was at the last time: who finds the
    answers in the input learns fast. (And at the first steps, and while loss_collapse is open.)"""

    def __post_init__(self) -> None:
        require(self.max_influence >= 0, "future_leak.max_influence", self.max_influence, ">= 0")
        require(0 < self.again_below < 1, "future_leak.again_below", self.again_below, "between 0 and 1")


class FutureLeak:
    """An exact test: one look is enough, and the next one that is clean ends it."""

    def __init__(self, config: FutureLeakConfig) -> None:
        self._config = config
        self._incident = Incident("future_leak")

    def observe(self, signals: StepSignals) -> list[Finding]:
        influence = signals.future_influence
        if influence is None or not isfinite(influence):
            return []
        evidence = {"value": influence, "threshold": self._config.max_influence, "loss": signals.loss}
        if influence <= self._config.max_influence:
            return self._incident.good(signals.step, 1, evidence)
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def rebase(self) -> None:
        """Nothing to forget: it is not a matter of what was normal."""

    def state_dict(self) -> dict[str, Any]:
        return {"incident": self._incident.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
