"""gradient_scale_shift: the gradients of all layers changed by one factor while the loss went on as before."""

from collections import deque
from dataclasses import dataclass
from math import exp, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.loss_level import LossLevel
from minigpt.training_monitor.detectors.still_scaled import StillScaled
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.group_baselines import GroupBaselines, uniform_factor
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class ScaleShiftConfig:
    """When a common factor in all gradients is called gradient_scale_shift."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 50
    """The first step at which this rule may interrupt; earlier it only notes events. Gradients that carry the
    GradScaler's factor from the start are told at once."""
    min_factor: float = 2.5
    """The norms of all groups became so many times larger or smaller, at once."""
    persist_steps: int = 10
    """Steps for which the factor must last."""
    close_steps: int = 48
    """Steps after which the new scale is the new normal, or that the old one must be back."""

    def __post_init__(self) -> None:
        name = "gradient_scale_shift"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.min_factor > 1.5, f"{name}.min_factor", self.min_factor, "> 1.5")
        require(self.persist_steps >= 4, f"{name}.persist_steps", self.persist_steps, ">= 4")
        require(
            self.close_steps > self.persist_steps,
            f"{name}.close_steps",
            self.close_steps,
            f"more than persist_steps = {self.persist_steps}",
        )


MIN_HISTORY = 16
AT_ONCE = 0.7
"""Share of the factor that its first three steps must show: a decline or a climb is another rule's."""
UNSETTLED_STEPS, UNSETTLED = 16, 3
"""More than so many of the steps before it that were off as well show a norm on its way, not a factor."""
NOISE = 3.0
"""Robust standard deviations of the norm that a shift must exceed."""
OTHER_TOKENS = 0.3
"""A step with so many more or fewer tokens has norms of another scale: longer windows, a larger batch."""


class GradientScaleShift:
    """A bug in normalisation (accumulation not divided by its steps, a changed reduction): Adam hides it from the
    loss, clipping does not.
    """

    def __init__(self, config: ScaleShiftConfig) -> None:
        self._config = config
        self._least = 0.6 * log(config.min_factor)
        self._incident = Incident("gradient_scale_shift")
        self._norms = Baseline(min_sigma=0.1)
        self._groups = GroupBaselines()
        self._loss = LossLevel()
        self._changes: deque[dict[str, float]] = deque(maxlen=max(4, config.persist_steps // 2))
        self._since: int | None = None
        self._onset: list[float] = []  # shifts of the first steps
        self._off: deque[bool] = deque(maxlen=UNSETTLED_STEPS)  # which of the steps before those were off
        self._tokens = 0
        self._still_scaled = StillScaled()

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not signals.finite or signals.grad_norm <= 0 or len(signals.group_norms) < 3:
            return []
        if abs(signals.tokens - self._tokens) > OTHER_TOKENS * self._tokens:
            self.rebase()
        self._tokens = signals.tokens
        still_scaled = self._still_scaled.evidence(signals)
        if still_scaled is not None:
            findings = self._incident.bad(signals.step, still_scaled)
            return findings + self._incident.sustain(signals.step, still_scaled)
        step, value = signals.step, log(signals.grad_norm)
        center = self._norms.center
        shift = 0.0 if center is None or self._norms.accepted < MIN_HISTORY else value - center
        # Somewhat less than the factor wanted: the noise of single steps must not break the row. But more than that
        # noise: norms that differ by such factors from batch to batch are no shift.
        far = abs(shift) > self._least and abs(shift) > NOISE * self._norms.sigma
        self._loss.note(signals.loss, normal=not far)
        if not far:
            self._off.extend([True] * len(self._onset))
            self._off.append(False)
            return self._usual(signals, value)
        self._changes.append(self._groups.changes(signals))
        self._since = self._since or step
        if len(self._onset) < 3:
            self._onset.append(shift)
        lasts = step - self._since + 1
        if lasts > self._config.close_steps:
            self._norms.restart([value])
            self._since, self._onset = None, []
            self._off.clear()
            return self._incident.close(step, {"new_normal": True})
        return self._judge(signals, lasts)

    def _usual(self, signals: StepSignals, value: float) -> list[Finding]:
        self._since = None
        self._onset = []
        self._changes.clear()
        self._norms.accept(value)
        self._groups.accept(signals)
        return self._incident.good(signals.step, self._config.persist_steps, {"value": signals.grad_norm})

    def _judge(self, signals: StepSignals, lasts: int) -> list[Finding]:
        if lasts < self._config.persist_steps or len(self._changes) < 3 or self._incident.sustained:
            return []
        factor = uniform_factor(list(self._changes))
        if factor is None or not self._loss.fits(factor) or sum(self._off) > UNSETTLED:
            return []
        at_once = abs(median(self._onset)) > AT_ONCE * abs(factor)
        if abs(factor) < log(self._config.min_factor) or not at_once:
            return []
        evidence: dict[str, float | int | str] = {
            "value": signals.grad_norm,
            "normal": exp(self._norms.center or 0.0),
            "ratio": exp(factor),
            "loss": signals.loss,
            "since": self._since or signals.step,
        }
        findings = self._incident.bad(signals.step, evidence)
        if signals.step >= self._config.first_step:
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def rebase(self) -> None:
        self._norms = Baseline(min_sigma=0.1)
        self._changes.clear()
        self._since, self._onset = None, []
        self._off.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "norms": self._norms.state_dict(),
            "groups": self._groups.state_dict(),
            "loss": self._loss.state_dict(),
            "changes": [dict(change) for change in self._changes],
            "since": self._since,
            "onset": list(self._onset),
            "off": list(self._off),
            "tokens": self._tokens,
            "still_scaled": self._still_scaled.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._norms.load_state_dict(state["norms"])
        self._groups.load_state_dict(state["groups"])
        self._loss.load_state_dict(state["loss"])
        self._changes = deque((dict(change) for change in state["changes"]), maxlen=self._changes.maxlen)
        self._since = state["since"]
        self._onset = list(state["onset"])
        self._off = deque(state["off"], maxlen=UNSETTLED_STEPS)
        self._tokens = state["tokens"]
        self._still_scaled.load_state_dict(state["still_scaled"])
