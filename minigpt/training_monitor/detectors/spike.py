"""A value far above its own recent normal: the rule that gradient_exploding and loss_spike share."""

from collections import deque
from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import Baseline
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident


@dataclass(frozen=True, kw_only=True)
class ExplodingConfig:
    """When a gradient norm far above its own recent normal is called gradient_exploding."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    rule: ClassVar[str] = "gradient_exploding"

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    min_history: int = 16
    """Accepted values needed before anything can be called unusual."""
    z_score: float = 6.0
    """Robust standard deviations (1.4826 MAD, log space) above the short median that count as unusual."""
    min_ratio: float = 4.0
    """And this many times the short median: an effect that matters, not only an improbable one."""
    min_sigma: float = 0.10
    """Floor of the standard deviation (log space), so that a very quiet run does not cry wolf."""
    persist_steps: int = 8
    """Unusual steps in a row that make a spike sustained; fewer are transient."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    close_z_score: float = 3.0
    """Normal again means below this many standard deviations."""
    readmit_steps: int = 40
    """Unusual steps in a row after which the new level is the new normal."""

    def __post_init__(self) -> None:
        name = self.rule
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.min_history >= 4, f"{name}.min_history", self.min_history, ">= 4")
        require(self.z_score > 0, f"{name}.z_score", self.z_score, "> 0")
        require(self.min_ratio > 1, f"{name}.min_ratio", self.min_ratio, "> 1")
        require(self.min_sigma > 0, f"{name}.min_sigma", self.min_sigma, "> 0")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
        require(
            0 < self.close_z_score <= self.z_score,
            f"{name}.close_z_score",
            self.close_z_score,
            f"above 0 and at most z_score = {self.z_score}",
        )
        require(
            self.readmit_steps > self.persist_steps,
            f"{name}.readmit_steps",
            self.readmit_steps,
            f"more than persist_steps = {self.persist_steps}",
        )


class SpikeRule:
    """Candidate: z above z_score and min_ratio x the short median. Outliers stay out of the baseline.

    With `guard_below`, values as far below are no findings but stay out of it too: coming back from a dip to
    nothing is no spike.
    """

    def __init__(self, name: str, config: ExplodingConfig, *, guard_below: bool = False) -> None:
        self.config = config
        self._guard_below = guard_below
        self.baseline = Baseline(config.min_sigma)
        self.incident = Incident(name)
        self._outliers: deque[float] = deque(maxlen=Baseline.SHORT)
        self._outliers_in_a_row = 0
        self._peak = 0.0

    def observe(self, step: int, value: float, **seen: float | str) -> list[Finding]:
        """Findings about a value; one that is not a positive number leaves no trace."""
        if not (isfinite(value) and value > 0):
            return []
        logarithm = log(value)
        center = self.baseline.center
        if center is None or self.baseline.accepted < self.config.min_history:
            self.baseline.accept(logarithm)
            return []
        residual = logarithm - center
        z_score = residual / self.baseline.sigma
        evidence = {"value": value, "normal": exp(center), "ratio": exp(residual), "z_score": z_score, **seen}
        if z_score > self.config.z_score and residual > log(self.config.min_ratio):
            return self._unusual(step, logarithm, evidence)
        if self._guard_below and z_score < -self.config.z_score and residual < -log(self.config.min_ratio):
            return self._far_below(step, logarithm, evidence)
        return self._usual(step, logarithm, z_score, evidence)

    def _unusual(self, step: int, logarithm: float, evidence: dict[str, float | str]) -> list[Finding]:
        self._outliers.append(logarithm)
        self._outliers_in_a_row += 1
        self._peak = max(self._peak, logarithm) if self.incident.is_open else logarithm
        evidence["peak"] = exp(self._peak)
        findings = self.incident.bad(step, evidence)
        lasts = self._outliers_in_a_row >= self.config.persist_steps
        if lasts and step >= self.config.first_step:
            findings += self.incident.sustain(step, evidence)
        if self._readmitted():
            findings += self.incident.close(step, {**evidence, "new_normal": True})
        return findings

    def _far_below(self, step: int, logarithm: float, evidence: dict[str, float | str]) -> list[Finding]:
        if self._outliers and self._outliers[-1] > (self.baseline.center or 0.0):
            self._outliers.clear()
            self._outliers_in_a_row = 0
        self._outliers.append(logarithm)
        self._outliers_in_a_row += 1
        self._readmitted()
        return self.incident.good(step, self.config.close_steps, evidence)

    def _readmitted(self) -> bool:
        """Whether outliers have lasted so long that their level is now the normal one."""
        if self._outliers_in_a_row < self.config.readmit_steps:
            return False
        self.baseline.restart(list(self._outliers))
        self._outliers_in_a_row = 0
        return True

    def _usual(
        self, step: int, logarithm: float, z_score: float, evidence: dict[str, float | str]
    ) -> list[Finding]:
        self._outliers_in_a_row = 0
        self._outliers.clear()
        if self.incident.is_open:
            evidence["peak"] = exp(self._peak)
        self.baseline.accept(logarithm)
        if self.incident.is_open and z_score > self.config.close_z_score:
            return []  # between the two thresholds: not over yet
        return self.incident.good(step, self.config.close_steps, evidence)

    def rebase(self) -> None:
        """Learns its normal anew."""
        self.baseline = Baseline(self.config.min_sigma)
        self._outliers.clear()
        self._outliers_in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline.state_dict(),
            "incident": self.incident.state_dict(),
            "outliers": list(self._outliers),
            "outliers_in_a_row": self._outliers_in_a_row,
            "peak": self._peak,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.baseline.load_state_dict(state["baseline"])
        self.incident.load_state_dict(state["incident"])
        self._outliers = deque(state["outliers"], maxlen=Baseline.SHORT)
        self._outliers_in_a_row = state["outliers_in_a_row"]
        self._peak = state["peak"]
