"""loss_collapse: the loss falls too fast to be learning."""

from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.step_window import StepWindow
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LossCollapseConfig:
    """When a falling loss is called loss_collapse."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 50
    """The first step at which this rule may speak: early losses do fall fast."""
    max_ratio: float = 0.7
    """Below this fraction of its lowest recent level within fall_steps: an event; easier data explain it too."""
    abrupt_ratio: float = 0.3
    """Below this fraction: no text is that much easier, so it interrupts."""
    fall_steps: int = 12
    """Steps within which the fall must happen: learning by heart takes longer."""
    persist_steps: int = 4
    """Steps for which the loss must stay down."""
    close_steps: int = 40
    """Steps after which the level is the new normal."""

    def __post_init__(self) -> None:
        name = "loss_collapse"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(0 < self.max_ratio < 1, f"{name}.max_ratio", self.max_ratio, "between 0 and 1")
        require(
            0 < self.abrupt_ratio <= self.max_ratio,
            f"{name}.abrupt_ratio",
            self.abrupt_ratio,
            f"above 0 and at most max_ratio = {self.max_ratio}",
        )
        require(self.fall_steps >= 2, f"{name}.fall_steps", self.fall_steps, ">= 2")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(
            self.close_steps > self.persist_steps, f"{name}.close_steps", self.close_steps, "> persist_steps"
        )


class LossCollapse:
    """Too good to be true: labels that leak into the input, a batch that repeats, targets that became trivial."""

    def __init__(self, config: LossCollapseConfig, facts: RunFacts) -> None:
        self._config = config
        self._speaks_at = max(config.first_step, facts.warmup_steps)
        self._incident = Incident("loss_collapse")
        self._window = StepWindow(32)
        self._low_since: int | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not isfinite(signals.loss):
            return []
        step, value = signals.step, log(max(signals.loss, 1e-12))
        level = self._level(step)
        if level is None or value >= level + log(self._config.max_ratio):
            self._low_since = None
            self._window.add(step, value)
            seen = {"value": signals.loss, "loss": signals.loss}
            return self._incident.good(step, self._config.persist_steps, seen)
        self._low_since = self._low_since or step
        lasts = step - self._low_since + 1
        if lasts > self._config.close_steps:
            self._window.clear()
            self._low_since = None
            return self._incident.close(step, {"value": signals.loss, "new_normal": True})
        if lasts < self._config.persist_steps or step < self._speaks_at:
            return []
        evidence = {
            "value": signals.loss,
            "normal": exp(level),
            "ratio": exp(value - level),
            "loss": signals.loss,
        }
        findings = self._incident.bad(step, evidence)
        if value < level + log(self._config.abrupt_ratio) and lasts <= self._config.fall_steps:
            findings += self._incident.sustain(step, evidence)
        return findings

    def _level(self, step: int) -> float | None:
        """Lowest of the medians of the last steps' halves: where the run was before it fell; None while unknown."""
        recent = [value for at, value in self._window.points if at > step - 80]
        if len(recent) < 16:
            return None
        half = len(recent) // 2
        return min(median(recent[:half]), median(recent[half:]))

    def rebase(self) -> None:
        self._window.clear()
        self._low_since = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "window": self._window.state(),
            "low_since": self._low_since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._window = StepWindow(32, state["window"])
        self._low_since = state["low_since"]
