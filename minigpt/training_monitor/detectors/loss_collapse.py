"""loss_collapse: the loss falls too fast to be learning."""

from dataclasses import dataclass
from math import exp, inf, isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import MAD_TO_SIGMA, median
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
    noise_z_score: float = 6.0
    """The fall must also be this many robust standard deviations of the loss's own noise, beyond its trend."""
    solved_ratio: float = 0.2
    """A loss below this fraction of the first ones has little left to collapse: its task is learnt."""

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
        require(self.noise_z_score >= 0, f"{name}.noise_z_score", self.noise_z_score, ">= 0")
        require(0 <= self.solved_ratio < 1, f"{name}.solved_ratio", self.solved_ratio, ">= 0 and below 1")


FIRST_LOSSES = 8
"""Losses whose median is what the task began with."""


class LossCollapse:
    """Too good to be true: labels that leak into the input, a batch that repeats, targets that became trivial.

    The scale is the loss's own: a batch of one, or a loss on its way to zero, falls by any factor at any time.
    """

    def __init__(self, config: LossCollapseConfig, facts: RunFacts) -> None:
        self._config = config
        self._speaks_at = max(config.first_step, facts.warmup_steps)
        self._incident = Incident("loss_collapse")
        self._window = StepWindow(32)
        self._low_since: int | None = None
        self._first: list[float] = []  # the first losses seen
        self._highest = inf  # no point of the window lies above it
        self._lowest = inf  # of the losses that were taken for normal
        self._dip = inf  # of those that are low now: if it comes back by itself, it may be as low again
        self._has_floor = True

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not isfinite(signals.loss):
            return []
        step, value = signals.step, log(max(signals.loss, 1e-12))
        if signals.loss <= 0 or not self._has_floor:
            self._has_floor = False  # no fall is too deep
            self.rebase()
            return self._incident.close(step, {"loss": signals.loss})
        if len(self._first) < FIRST_LOSSES:
            self._first.append(value)
        level, margin = (None, 0.0) if self._cannot_be_low(value) else self._level(step)
        # A run that was as low by itself before (data in an order, a batch of one) is not too good to be true.
        usual = level is None or value >= min(level - max(margin, -log(self._config.max_ratio)), self._lowest)
        if usual or level is None:
            self._low_since = None
            self._lowest, self._dip = min(value, self._lowest, self._dip), inf
            self._window.add(step, value)
            self._highest = max(self._highest, value)
            seen = {"value": signals.loss, "loss": signals.loss}
            return self._incident.good(step, self._config.persist_steps, seen)
        self._low_since = self._low_since or step
        self._dip = min(value, self._dip)
        lasts = step - self._low_since + 1
        if lasts > self._config.close_steps:
            self._lowest = min(value, self._lowest)
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
        abrupt = max(margin, -log(self._config.abrupt_ratio))
        if value < level - abrupt and lasts <= self._config.fall_steps:
            findings += self._incident.sustain(step, evidence)
        return findings

    def _cannot_be_low(self, value: float) -> bool:
        """Cheap, and nearly always so: not far below any loss of the window."""
        fall = -log(self._config.max_ratio)
        if value < self._highest - fall:
            self._highest = max(self._window.values, default=-inf)
        return value >= self._highest - fall

    def _level(self, step: int) -> tuple[float | None, float]:
        """Lowest of the medians of the last steps' halves, where the run was before it fell, None while unknown or
        solved; and the fall that its noise and its trend explain."""
        points = [point for point in self._window.points if point[0] > step - 80]
        if len(points) < 16:
            return None, 0.0
        recent = [value for _, value in points]
        half = len(recent) // 2
        older, newer = median(recent[:half]), median(recent[half:])
        level = min(older, newer)
        if level < median(self._first) + log(max(self._config.solved_ratio, 1e-12)):
            return None, 0.0
        last = [median(recent[-8:-4]), median(recent[-4:])]
        quick = max(0.0, last[0] - last[1]) / max(points[-2][0] - points[-6][0], 1)
        slope = max(0.0, older - newer) / max(points[half + half // 2][0] - points[half // 2][0], 1)
        ahead = min(step - points[half + half // 2][0], self._config.close_steps)
        noise = median([abs(value - (older if at < points[half][0] else newer)) for at, value in points])
        return level, self._config.noise_z_score * MAD_TO_SIGMA * noise + max(
            slope * ahead,
            # What falls faster and faster is a task being understood: its last slope, for as long as a fall may take.
            level - last[1] + quick * min(step - points[-3][0], self._config.fall_steps),
        )

    def rebase(self) -> None:
        self._window.clear()
        self._low_since, self._lowest, self._dip = None, inf, inf

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "window": self._window.state(),
            "low_since": self._low_since,
            "first": list(self._first),
            "lowest": self._lowest if isfinite(self._lowest) else None,
            "dip": self._dip if isfinite(self._dip) else None,
            "has_floor": self._has_floor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._window, self._highest = StepWindow(32, state["window"]), inf
        self._low_since = state["low_since"]
        self._first = list(state["first"])
        self._lowest = inf if state["lowest"] is None else state["lowest"]
        self._dip = inf if state["dip"] is None else state["dip"]
        self._has_floor = state["has_floor"]
