"""A value far above its own recent normal: the rule that gradient_exploding and loss_spike share."""

from collections import deque
from collections.abc import Callable
from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import Baseline
from minigpt.training_monitor.detectors.spike_config import ExplodingConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident

RECENT_STEPS = 128
"""How long a level that the run has left counts as one it may come back to."""
OFTEN = 3
"""Transient spikes within OFTEN_STEPS that make spikes of their size usual ..."""
OFTEN_STEPS = 512
LARGER = 1.1
"""... so that only one which is so many times larger than all of them (log space) is worth an event."""


class SpikeRule:
    """Candidate: z above z_score and min_ratio x the short median. Outliers stay out of the baseline.

    Values as far below are no findings but stay out of it too, and coming back to a level the run had lately
    is no spike: neither the end of a dip, nor of a long decline. Where spikes are many (a batch of one) only one
    larger than all is worth an event; lasting ones are found all the same.
    """

    def __init__(self, name: str, config: ExplodingConfig) -> None:
        self.config = config
        self.baseline = Baseline(config.min_sigma)
        self.incident = Incident(name)
        self._margin = log(config.min_ratio)
        self._outliers: deque[float] = deque(maxlen=Baseline.SHORT)
        self._outliers_in_a_row = 0
        self._outliers_since = 0
        self._peak = 0.0
        self._levels: deque[tuple[int, float]] = deque()  # (step, short median) every 8 accepted values
        # (step, residual) of spikes that passed
        self._transients: deque[tuple[int, float]] = deque(maxlen=16)

    def observe(
        self, step: int, value: float, alarm: Callable[[], str | None] = lambda: "lasts", **seen: float | str
    ) -> list[Finding]:
        """Findings about a value; one that is not a positive number leaves no trace.

        `alarm` is asked once the spike has lasted: why it deserves attention, or None while it may be harmless.
        """
        if not (isfinite(value) and value > 0):
            return []
        logarithm = log(value)
        center = self.baseline.center
        if center is None or self.baseline.accepted < self.config.min_history:
            self.baseline.accept(logarithm)
            return []
        residual = logarithm - center
        small = abs(residual) <= self._margin
        if small and not self.incident.is_open:
            self._accept(step, logarithm)  # nearly always
            return []
        z_score = residual / self.baseline.sigma
        usual = small or abs(z_score) <= self.config.z_score
        if usual and not self.incident.is_open:
            self._accept(step, logarithm)
            return []
        evidence: dict[str, float | str] = {
            "value": value,
            "normal": exp(center),
            "ratio": exp(residual),
            "z_score": z_score,
            **seen,
        }
        if usual:
            return self._usual(step, logarithm, z_score, evidence)
        if residual < 0:
            return self._below(step, logarithm, evidence)
        if self._comes_back(step, logarithm, center):
            return self._back_again(step, logarithm, evidence)
        return self._above(step, logarithm, residual, alarm, evidence)

    def _above(
        self,
        step: int,
        logarithm: float,
        residual: float,
        alarm: Callable[[], str | None],
        evidence: dict[str, float | str],
    ) -> list[Finding]:
        self._peak = max(self._peak, logarithm) if self._outliers_in_a_row else logarithm
        if not self._outliers_in_a_row:
            self._outliers_since = step
        self._note(logarithm)
        evidence["peak"] = exp(self._peak)
        # Steps are the clock, yet one value of a sparse record proves nothing.
        lasts = step - self._outliers_since + 1 >= self.config.persist_steps and self._outliers_in_a_row >= 3
        findings: list[Finding] = []
        if self.incident.is_open or lasts or residual > self._usual_spike(step):
            findings = self.incident.bad(step, evidence)
        if lasts and step >= self.config.first_step and not self.incident.sustained:
            trigger = alarm()
            if trigger:
                findings += self.incident.sustain(step, {**evidence, "trigger": trigger})
        if self._readmitted():
            findings += self.incident.close(step, {**evidence, "new_normal": True})
        return findings

    def _below(self, step: int, logarithm: float, evidence: dict[str, float | str]) -> list[Finding]:
        if self._outliers and self._outliers[-1] > (self.baseline.center or 0.0):
            self._forget_outliers(step)
        self._note(logarithm)
        self._readmitted()
        return self.incident.good(step, self.config.close_steps, evidence)

    def _back_again(self, step: int, logarithm: float, evidence: dict[str, float | str]) -> list[Finding]:
        """Up to where the run was not long ago: taken for its level again after a few steps."""
        self._note(logarithm)
        if self._outliers_in_a_row >= self.baseline.SHORT // 2:
            self.baseline.restart(list(self._outliers))
            self._forget_outliers(step)
        return self.incident.good(step, self.config.close_steps, evidence)

    def _note(self, logarithm: float) -> None:
        self._outliers.append(logarithm)
        self._outliers_in_a_row += 1

    def _forget_outliers(self, step: int) -> None:
        size = self._peak - (self.baseline.center or 0.0)
        if 0 < self._outliers_in_a_row < self.config.persist_steps and size > 0.0:
            self._transients.append((step, size))
        self._outliers.clear()
        self._outliers_in_a_row = 0
        self._peak = 0.0

    def _comes_back(self, step: int, logarithm: float, center: float) -> bool:
        """Whether the run had fallen far within RECENT_STEPS and is no higher now than it was before."""
        highest = max((level for at, level in self._levels if at > step - RECENT_STEPS), default=center)
        return highest - center > 2 * self._margin and logarithm < highest + self._margin / 2

    def _usual_spike(self, step: int) -> float:
        """Size that a new spike must exceed to be worth an event: 0 unless they are frequent."""
        sizes = [size for at, size in self._transients if at > step - OFTEN_STEPS]
        return LARGER * max(sizes) if len(sizes) >= OFTEN else 0.0

    def _readmitted(self) -> bool:
        """Whether outliers have lasted so long that their level is now the normal one."""
        if self._outliers_in_a_row < self.config.readmit_steps:
            return False
        self._remember_level(self._outliers_since)
        self.baseline.restart(list(self._outliers))
        self._outliers.clear()
        self._outliers_in_a_row = 0
        return True

    def _remember_level(self, step: int) -> None:
        if self.baseline.center is not None:
            self._levels.append((step, self.baseline.center))
        while self._levels and self._levels[0][0] <= step - RECENT_STEPS:
            self._levels.popleft()

    def _usual(
        self, step: int, logarithm: float, z_score: float, evidence: dict[str, float | str]
    ) -> list[Finding]:
        """A usual value while the spike is open."""
        self._accept(step, logarithm)
        if z_score > self.config.close_z_score:
            return []  # between the two thresholds: not over yet
        return self.incident.good(step, self.config.close_steps, {**evidence, "peak": exp(self._peak)})

    def _accept(self, step: int, logarithm: float) -> None:
        if self._outliers_in_a_row:
            self._forget_outliers(step)
        self.baseline.accept(logarithm)
        if self.baseline.accepted % Baseline.SHORT == 0:
            self._remember_level(step)

    def rebase(self) -> None:
        """Learns its normal anew."""
        self.baseline = Baseline(self.config.min_sigma)
        self._outliers.clear()
        self._outliers_in_a_row = 0
        self._levels.clear()
        self._transients.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline.state_dict(),
            "incident": self.incident.state_dict(),
            "outliers": list(self._outliers),
            "outliers_in_a_row": self._outliers_in_a_row,
            "outliers_since": self._outliers_since,
            "peak": self._peak,
            "levels": [list(level) for level in self._levels],
            "transients": [list(spike) for spike in self._transients],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.baseline.load_state_dict(state["baseline"])
        self.incident.load_state_dict(state["incident"])
        self._outliers = deque(state["outliers"], maxlen=Baseline.SHORT)
        self._outliers_in_a_row = state["outliers_in_a_row"]
        self._outliers_since = state["outliers_since"]
        self._peak = state["peak"]
        self._levels = deque((step, level) for step, level in state["levels"])
        self._transients = deque(((step, size) for step, size in state["transients"]), maxlen=16)
