"""leftover_gradient: gradients of the step before are still there when a new backward begins."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.recurrence import Recurrence
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
    recur_times: int = 4
    """Or so many times ..."""
    recur_steps: int = 32
    """... within so many steps, each after an update: every other zero_grad is forgotten."""
    close_steps: int = 3
    """Clean steps that end a sustained finding."""

    def __post_init__(self) -> None:
        rule = "leftover_gradient"
        require(self.min_ratio > 0, f"{rule}.min_ratio", self.min_ratio, "> 0")
        require(self.persist_steps >= 1, f"{rule}.persist_steps", self.persist_steps, ">= 1")
        require(self.recur_times >= 2, f"{rule}.recur_times", self.recur_times, ">= 2")
        require(
            self.recur_steps >= self.recur_times, f"{rule}.recur_steps", self.recur_steps, ">= recur_times"
        )
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


class LeftoverGradient:
    """Every step begins with no gradient, or all zero.

    Silent where some parameters are in no optimizer: its zero_grad does not clear theirs, and no update uses them.
    """

    def __init__(self, config: LeftoverGradientConfig) -> None:
        self._config = config
        self._incident = Incident("leftover_gradient")
        self._again = Recurrence(config.recur_times, config.recur_steps)

    def observe(self, signals: StepSignals) -> list[Finding]:
        leftover = signals.leftover_grad_norm
        if leftover is None or not isfinite(leftover) or not isfinite(signals.grad_norm):
            return []
        if leftover <= self._config.min_ratio * signals.grad_norm or self._may_be_others(signals):
            habit = self._incident.sustained and self._again.holds(signals.step)
            close_steps = self._config.recur_steps if habit else self._config.close_steps
            return self._incident.good(signals.step, close_steps, {"value": leftover})
        ratio = leftover / signals.grad_norm if signals.grad_norm > 0.0 else 0.0
        evidence = {"value": leftover, "ratio": ratio, "loss": signals.loss}
        waits = bool(signals.update_ratios) and not any(signals.update_ratios.values())
        if not waits and (not self._incident.is_open or self._incident.good_count):
            self._again.note(signals.step)  # a gradient that waits for its update is accumulated on purpose
        findings = self._incident.bad(signals.step, evidence)
        if self._incident.bad_count >= self._config.persist_steps or self._again.holds(signals.step):
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
        return {"incident": self._incident.state_dict(), "again": self._again.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._again.load_state_dict(state["again"])
