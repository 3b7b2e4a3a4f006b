"""learning_rate_mismatch: the optimizer's learning rate is not the schedule's, or it leaps without one."""

from collections import deque
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LearningRateConfig:
    """When a learning rate is called learning_rate_mismatch."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    tolerance: float = 0.01
    """Relative difference from the schedule that does not matter."""
    persist_steps: int = 3
    """Steps in a row off the schedule."""
    leap_ratio: float = 5.0
    """A rate this many times above its schedule interrupts at once; between two steps without a known schedule it is
    noted as an event (restarts are healthy)."""
    fall_ratio: float = 30.0
    """A rate that falls to less than this many times below itself from one step to the next, without a known schedule
    and without going to 0, interrupts when it stays there: no schedule takes such a step."""
    close_steps: int = 3
    """Steps on schedule that end a sustained finding."""

    def __post_init__(self) -> None:
        rule = "learning_rate_mismatch"
        require(0 < self.tolerance < 1, f"{rule}.tolerance", self.tolerance, "between 0 and 1")
        require(self.persist_steps >= 1, f"{rule}.persist_steps", self.persist_steps, ">= 1")
        require(self.leap_ratio > 1, f"{rule}.leap_ratio", self.leap_ratio, "> 1")
        require(self.fall_ratio > 1, f"{rule}.fall_ratio", self.fall_ratio, "> 1")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


LEAP_LASTS = 8
"""Steps after which a leap above the schedule is no brief one."""
NEGLIGIBLE = 1e-4
"""Differences below this fraction of the schedule's highest rate so far, times the tolerance, do not matter either."""


class LearningRateMismatch:
    """lr equals the schedule at every step; a schedule counted from 0 instead of 1 is the same schedule."""

    def __init__(self, config: LearningRateConfig) -> None:
        self._config = config
        self._incident = Incident("learning_rate_mismatch")
        self._last: tuple[int, float, float] | None = None
        self._highest = 0.0
        self._off = 0
        self._moves = False
        self._leapt = False
        self._recent_rates: deque[float] = deque(maxlen=LEAP_LASTS)  # those without a schedule
        self._fell_from = 0.0
        self._fell_steps = 0

    def observe(self, signals: StepSignals) -> list[Finding]:
        lr, scheduled = signals.lr, signals.scheduled_lr
        if scheduled is None:
            return self._without_schedule(signals)
        if not isfinite(lr) or not isfinite(scheduled):
            return []
        self._highest = max(self._highest, scheduled)
        was_zero = self._last is not None and self._last[1] == 0.0
        self._moves = self._moves or (was_zero and any(signals.update_ratios.values()))
        matches = self._is_on_schedule(signals.step, lr, scheduled)
        leaps = lr > self._config.leap_ratio * max(scheduled, self._neighbour(signals.step))
        self._last = (signals.step, lr, scheduled)
        if matches and not self._incident.is_open:
            self._off = 0
            return []  # nearly always
        evidence: Evidence = {
            "lr": lr,
            "scheduled_lr": scheduled,
            "ratio": lr / scheduled if scheduled > 0.0 else float(lr > 0.0),
        }
        if matches:
            self._off = 0
            return self._incident.good(signals.step, self._config.close_steps, evidence)
        self._off += 1
        leaps = leaps and scheduled > 0.0
        self._leapt = leaps and (self._off == 1 or self._leapt)
        findings = self._incident.bad(signals.step, evidence, interrupts=self._leapt)
        # Of a leap the user knows at once; whether it lasts shows later.
        if self._off >= (LEAP_LASTS if self._leapt else self._config.persist_steps):
            findings += self._incident.sustain(signals.step, evidence)
        return findings

    def _is_on_schedule(self, step: int, lr: float, scheduled: float) -> bool:
        if self._agree(lr, scheduled):
            return True
        if lr == 0.0 and self._moves:
            return True  # the rate told is that of a group at rest, not the base
        if self._last is None or self._last[0] != step - 1:
            return False
        _, last_lr, last_scheduled = self._last
        # One step late, or (to be seen only now) one step early; a rate that stands still is neither.
        late = self._agree(lr, last_scheduled) and not self._agree(lr, last_lr)
        was_off = not self._agree(last_lr, last_scheduled)
        return late or (was_off and self._agree(last_lr, scheduled) and not self._agree(lr, last_lr))

    def _agree(self, one: float, other: float) -> bool:
        return abs(one - other) <= self._config.tolerance * max(abs(other), NEGLIGIBLE * self._highest)

    def _neighbour(self, step: int) -> float:
        """The schedule's value of the step before."""
        return self._last[2] if self._last is not None and self._last[0] == step - 1 else 0.0

    def _without_schedule(self, signals: StepSignals) -> list[Finding]:
        """A leap is noted, closed with the next step, and never interrupts; a deep fall does, when it lasts."""
        step, lr = signals.step, signals.lr
        last, self._last = self._last, (step, lr, lr)
        if self._fell_from:
            return self._fallen(step, lr)
        findings = self._incident.close(step, {"lr": lr})
        lately = min(self._recent_rates, default=0.0)  # back from a brief leap is no fall
        if last is None or last[0] != step - 1:
            self._recent_rates.clear()
        elif 0.0 < lr < lately / self._config.fall_ratio:
            self._fell_from, self._fell_steps = lately, 0
            return findings + self._fallen(step, lr)
        self._recent_rates.append(lr)
        if last is None or last[0] != step - 1 or last[1] <= 0.0 or lr <= self._config.leap_ratio * last[1]:
            return findings
        evidence = {"lr": lr, "normal": last[1], "ratio": lr / last[1]}
        return findings + self._incident.bad(step, evidence)

    def _fallen(self, step: int, lr: float) -> list[Finding]:
        """A step at a rate far below the one before the fall, or back from there."""
        evidence = {"lr": lr, "normal": self._fell_from, "ratio": lr / self._fell_from}
        if not lr < self._fell_from / self._config.fall_ratio:
            self._fell_from = 0.0
            self._recent_rates.clear()
            return self._incident.close(step, evidence)
        self._fell_steps += 1
        findings = self._incident.bad(step, evidence)
        return findings + (self._incident.sustain(step, evidence) if self._fell_steps >= LEAP_LASTS else [])

    def rebase(self) -> None:
        """The schedule is given anew with every step: only its highest rate is forgotten."""
        self._highest = self._fell_from = 0.0
        self._last = None
        self._recent_rates.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "last": None if self._last is None else list(self._last),
            "highest": self._highest,
            "off": self._off,
            "moves": self._moves,
            "leapt": self._leapt,
            "recent_rates": list(self._recent_rates),
            "fell_from": self._fell_from,
            "fell_steps": self._fell_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        last = state["last"]
        self._last = None if last is None else (int(last[0]), float(last[1]), float(last[2]))
        self._highest = state["highest"]
        self._off, self._moves, self._leapt = state["off"], state["moves"], state["leapt"]
        self._recent_rates = deque(state["recent_rates"], maxlen=LEAP_LASTS)
        self._fell_from, self._fell_steps = state["fell_from"], state["fell_steps"]
