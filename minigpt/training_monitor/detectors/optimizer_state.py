"""optimizer_state_lost: the optimizer forgot its moments, by its own count of updates or by how its updates leap."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import Facts
from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.detectors.moment_leap import MomentLeap
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class OptimizerStateConfig:
    """When an optimizer is said to have lost its state."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    leap_ratio: float = 1.4
    """All layers' updates this many times above (or below) their normal at once, with learning rate, gradients and loss
    as they were, and on their way back soon after, are what fresh moments look like."""
    min_history: int = 16
    """Updates before they have a normal."""
    close_steps: int = 16
    """Steps after which a loss of state, which happens once, is over."""

    def __post_init__(self) -> None:
        rule = "optimizer_state_lost"
        require(self.leap_ratio > 1, f"{rule}.leap_ratio", self.leap_ratio, "> 1")
        require(self.min_history >= 4, f"{rule}.min_history", self.min_history, ">= 4")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


OLD_ENOUGH = 3
"""Steps into a training after which an optimizer that has counted none is a fresh one."""
CALIBRATION = 25
"""Updates that a GradScaler may refuse at first, until its scale fits."""


class OptimizerStateLost:
    """The count of updates never falls; without a count, a uniform leap of all updates gives it away."""

    def __init__(self, config: OptimizerStateConfig) -> None:
        self._config = config
        self._incident = Incident("optimizer_state_lost")
        self._last = LastStep()
        self._count: float | None = None
        self._updates = MomentLeap(config.leap_ratio, config.min_history, config.close_steps)

    def observe(self, signals: StepSignals) -> list[Finding]:
        first = self._last.step is None
        evidence = self._lost_count(signals, first) or self._leap(signals)
        self._last.take(signals)
        if signals.optimizer_steps is not None or (self._count is not None and evidence):
            self._count = signals.optimizer_steps
        if not evidence:
            return self._incident.good(signals.step, self._config.close_steps, {})
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def _lost_count(self, signals: StepSignals, first: bool) -> Facts:
        """Evidence when the count fell, disappeared, or is that of a fresh optimizer in an old training."""
        count, before = signals.optimizer_steps, self._count
        if first:
            old = OLD_ENOUGH + (CALIBRATION if signals.scaler_scale is not None else 0)
            if count is not None and count <= 1.0 and signals.step > old:
                return {"value": count, "normal": float(signals.step - 1), "trigger": "resume"}
            return {}
        if before is None or before < 1.0:
            return {}
        if count is None or count < before:
            return {"value": count or 0.0, "normal": before, "trigger": "count"}
        return {}

    def _leap(self, signals: StepSignals) -> Facts:
        """Evidence when every layer's update leapt while nothing that should move it did."""
        last = self._last
        if not last.is_just_before(signals.step) or not last.applied_its_update(signals.step):
            return {}
        ratio = self._updates.observe(signals, last)
        return {} if ratio is None else {"ratio": ratio, "lr": last.lr, "trigger": "updates"}

    def rebase(self) -> None:
        """The optimizer may be another one from here on."""
        self._count = None
        self._updates.rebase()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "last": self._last.state_dict(),
            "count": self._count,
            "updates": self._updates.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._last.load_state_dict(state["last"])
        self._count = state["count"]
        self._updates.load_state_dict(state["updates"])
