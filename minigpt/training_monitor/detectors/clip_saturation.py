"""clip_saturation: nearly every step is clipped, and by far: the norm of the update is the clip's, not the loss's."""

from collections import deque
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class ClipSaturationConfig:
    """When constant clipping is called clip_saturation: an event, since Adam hardly minds."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 300
    """The first step at which this rule may speak; also not before warm-up has been over for window observations."""
    min_ratio: float = 10.0
    """Gradient norm over max_grad_norm that counts as far above."""
    window: int = 200
    """Steps seen that are judged together."""
    min_fraction: float = 0.95
    """Share of them that must be far above."""
    interrupts: bool = False
    """Whether it interrupts, instead of only being noted."""

    def __post_init__(self) -> None:
        name = "clip_saturation"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.min_ratio > 1, f"{name}.min_ratio", self.min_ratio, "> 1")
        require(self.window >= 10, f"{name}.window", self.window, ">= 10")
        require(
            0 < self.min_fraction <= 1, f"{name}.min_fraction", self.min_fraction, "above 0 and at most 1"
        )


class ClipSaturation:
    """The share of the last steps whose norm was far above the clip; silent without a known max_grad_norm."""

    def __init__(self, config: ClipSaturationConfig, facts: RunFacts) -> None:
        self._config = config
        self._limit = facts.max_grad_norm
        self._speaks_at = max(config.first_step, facts.warmup_steps + config.window)
        self._incident = Incident("clip_saturation")
        self._far: deque[float] = deque(maxlen=config.window)
        self._count = 0

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not self._limit or not isfinite(signals.grad_norm):
            return []
        ratio = signals.grad_norm / self._limit
        if len(self._far) == self._config.window:
            self._count -= self._far[0] > self._config.min_ratio
        self._far.append(ratio)
        self._count += ratio > self._config.min_ratio
        saturated = self._count >= self._config.min_fraction * self._config.window
        if signals.step < self._speaks_at or not saturated:
            below = self._count < 0.5 * self._config.window
            return self._incident.close(signals.step, {"count": self._count}) if below else []
        if self._incident.sustained:
            return []
        evidence = {
            "value": signals.grad_norm,
            "threshold": self._limit,
            "ratio": median(self._far),
            "count": self._count,
        }
        evidence["of"] = self._config.window
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence, interrupts=self._config.interrupts)

    def rebase(self) -> None:
        self._far.clear()
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"incident": self._incident.state_dict(), "far": list(self._far), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._far = deque(state["far"], maxlen=self._config.window)
        self._count = state["count"]
