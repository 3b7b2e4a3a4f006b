"""optimizer_state_lost: the optimizer forgot its moments, by its own count of updates or by how its updates leap."""

from dataclasses import dataclass
from math import exp, isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import Facts
from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class OptimizerStateConfig:
    """When an optimizer is said to have lost its state."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    leap_ratio: float = 2.2
    """All layers' updates this many times above (or below) their normal at once, with learning rate and gradients as
    they were, are what fresh moments look like."""
    min_history: int = 12
    """Updates before they have a normal."""
    close_steps: int = 16
    """Steps after which a loss of state, which happens once, is over."""

    def __post_init__(self) -> None:
        rule = "optimizer_state_lost"
        require(self.leap_ratio > 1, f"{rule}.leap_ratio", self.leap_ratio, "> 1")
        require(self.min_history >= 4, f"{rule}.min_history", self.min_history, ">= 4")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


SMOOTHING = 0.25
"""Weight of the newest accepted step in what is normal."""
EVERY = 4
"""Once the normals are known, every so many steps are enough to follow them."""
FRESH = 2
"""Steps from the first unusual one in which a leap must show."""
MOST = 12.0
"""A larger leap is not one of fresh moments, whose updates are at most about as large as the learning rate."""
SETTLED = 0.6
"""Fresh moments settle: the leap falls below this share of its first size (log space)."""
STEADY = log(1.6)
"""Gradient norm and learning rate within this factor of their normal are as they were."""
COMMON = 0.6
"""The layer that leaps least must leap this share (log space) of what the middle one does."""
OLD_ENOUGH = 3
"""Steps into a training after which an optimizer that has counted none is a fresh one."""


class OptimizerStateLost:
    """The count of updates never falls; without a count, a uniform leap of all updates gives it away."""

    def __init__(self, config: OptimizerStateConfig) -> None:
        self._config = config
        self._incident = Incident("optimizer_state_lost")
        self._last = LastStep()
        self._count: float | None = None
        self._updates: dict[str, float] = {}
        self._bands: dict[str, tuple[float, float]] = {}
        self._normal_grad: float | None = None
        self._accepted = 0
        self._held = 0
        self._leapt: list[float] = []
        self._seen = 0

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
            if count is not None and count <= 1.0 and signals.step > OLD_ENOUGH:
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
        if len(signals.update_ratios) < 2 or last.lr <= 0.0 or last.grad_norm <= 0.0:
            return {}
        known = self._accepted >= self._config.min_history
        if known and self._far_off(signals):
            return self._held_off(signals)
        evidence = self._settled(0.0)
        self._held, self._leapt = 0, []
        if evidence:
            return evidence
        self._seen += 1
        if not known or self._seen % EVERY == 0:
            self._accept(signals)
        return {}

    def _held_off(self, signals: StepSignals) -> Facts:
        """Takes a step with unusual updates: fresh moments leap, then settle within some steps; a new rate stays."""
        self._held += 1
        if self._held >= self._config.close_steps:
            self._accepted, self._held, self._leapt = 0, 0, []  # it stays: a new normal
            return {}
        leap = self._uniform(signals)
        if self._held <= FRESH and leap:
            self._leapt.append(leap)
        elif self._held > FRESH and self._leapt:
            return self._settled(leap)
        return {}

    def _settled(self, leap: float) -> Facts:
        """Evidence when the updates leapt for more than one step and are now on their way back."""
        if len(self._leapt) < FRESH or abs(leap) > SETTLED * abs(self._leapt[0]):
            return {}
        first = self._leapt[0]
        self._leapt = []
        return {"ratio": exp(first), "lr": self._last.lr, "trigger": "updates"}

    def _far_off(self, signals: StepSignals) -> bool:
        """Whether the updates of some layer are outside of its normal band: the cheap test of every step."""
        lr, ratios = self._last.lr, signals.update_ratios
        for name, (low, high) in self._bands.items():
            ratio = ratios.get(name)
            if ratio is not None and not low < ratio / lr < high:
                return True
        return False

    def _uniform(self, signals: StepSignals) -> float:
        """By how much (log) all layers' updates are off their normal alike, with rate and gradients as they were.

        0: not alike, or not enough, or not for no reason.
        """
        logs = self._logs(signals)
        leaps = [logs[name] - self._updates[name] for name in logs if name in self._updates]
        middle = median(leaps) if len(leaps) >= 2 else 0.0
        alike = middle != 0.0 and all(leap / middle > COMMON for leap in leaps)
        if self._held > FRESH:
            return middle
        if self._normal_grad is None or not log(self._config.leap_ratio) < abs(middle) < log(MOST):
            return 0.0
        steady = abs(log(self._last.grad_norm) - self._normal_grad) < STEADY and self._steady_rate(signals)
        return middle if alike and steady else 0.0

    def _logs(self, signals: StepSignals) -> dict[str, float]:
        """Each layer's update per unit of learning rate (so that warm-up and decay are no leaps), log."""
        lr = self._last.lr
        ratios = signals.update_ratios.items()
        return {name: log(ratio / lr) for name, ratio in ratios if 0.0 < ratio < float("inf")}

    def _steady_rate(self, signals: StepSignals) -> bool:
        return signals.lr > 0.0 and isfinite(signals.lr) and abs(log(signals.lr / self._last.lr)) < STEADY

    def _accept(self, signals: StepSignals) -> None:
        rate = max(SMOOTHING, 1 / (self._accepted + 1))
        for name, update in self._logs(signals).items():
            usual = self._updates.get(name, update)
            self._updates[name] = usual + rate * (update - usual)
        grad = log(self._last.grad_norm)
        usual = grad if self._normal_grad is None else self._normal_grad
        self._normal_grad = usual + rate * (grad - usual)
        self._accepted += 1
        self._set_bands()

    def _set_bands(self) -> None:
        width = self._config.leap_ratio**COMMON
        self._bands = {
            name: (exp(usual) / width, exp(usual) * width) for name, usual in self._updates.items()
        }

    def rebase(self) -> None:
        """The optimizer may be another one from here on."""
        self._count = None
        self._accepted = 0
        self._updates.clear()
        self._bands.clear()
        self._normal_grad = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "last": self._last.state_dict(),
            "count": self._count,
            "updates": dict(self._updates),
            "normal_grad": self._normal_grad,
            "accepted": self._accepted,
            "held": self._held,
            "leapt": list(self._leapt),
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._last.load_state_dict(state["last"])
        self._count = state["count"]
        self._updates = dict(state["updates"])
        self._normal_grad = state["normal_grad"]
        self._accepted = state["accepted"]
        self._leapt = list(state["leapt"])
        self._held, self._seen = state["held"], state["seen"]
        self._set_bands()
