"""leftover_gradient: gradients of the step before are still there when a new backward begins."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LeftoverGradientConfig:
    """When gradients that were not cleared are called leftover_gradient."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    min_ratio: float = 1e-3
    """Leftovers above this fraction of the step's gradient norm count."""
    persist_steps: int = 2
    """Steps in a row with leftovers."""
    close_steps: int = 3
    """Clean steps that end a sustained finding."""

    def __post_init__(self) -> None:
        rule = "leftover_gradient"
        require(self.min_ratio > 0, f"{rule}.min_ratio", self.min_ratio, "> 0")
        require(self.persist_steps >= 1, f"{rule}.persist_steps", self.persist_steps, ">= 1")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


class LeftoverGradient:
    """Every step begins with no gradient, or all zero.

    Silent where some parameters are in no optimizer: its zero_grad does not clear theirs, and no update uses them.
    """

    def __init__(self, config: LeftoverGradientConfig) -> None:
        self._config = config
        self._incident = Incident("leftover_gradient")

    def observe(self, signals: StepSignals) -> list[Finding]:
        leftover = signals.leftover_grad_norm
        if leftover is None or not isfinite(leftover) or not isfinite(signals.grad_norm):
            return []
        if leftover <= self._config.min_ratio * signals.grad_norm or self._may_be_others(signals):
            return self._incident.good(signals.step, self._config.close_steps, {"value": leftover})
        ratio = leftover / signals.grad_norm if signals.grad_norm > 0.0 else 0.0
        evidence = {"value": leftover, "ratio": ratio, "loss": signals.loss}
        findings = self._incident.bad(signals.step, evidence)
        if self._incident.bad_count >= self._config.persist_steps:
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def _may_be_others(self, signals: StepSignals) -> bool:
        """Whether some gradients belong to parameters that no optimizer would clear."""
        parameters = signals.parameters
        if parameters is None or parameters.facts.optimized is None or all(parameters.facts.optimized):
            return False
        rows = zip(parameters.facts.optimized, parameters.grad_norms, strict=True)
        return any(not optimized and norm for optimized, norm in rows)

    def rebase(self) -> None:
        """A leftover is never normal: nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        return {"incident": self._incident.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
