"""loss_spike: the loss leaps above its own normal and stays there."""

from collections import deque
from dataclasses import dataclass
from math import exp, inf, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.detectors.spike import SpikeRule
from minigpt.training_monitor.detectors.spike_config import ExplodingConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class LossSpikeConfig(ExplodingConfig):
    """When a loss far above its own recent normal is called loss_spike: losses are quieter than norms."""

    rule: ClassVar[str] = "loss_spike"

    # Repeated in full: pydantic reads the docstrings of a class's own fields only.
    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    min_history: int = 16
    """Accepted values needed before anything can be called unusual."""
    z_score: float = 6.0
    """Robust standard deviations (1.4826 MAD, log space) above the short median that count as unusual."""
    min_ratio: float = 1.04
    """And this many times the short median: an effect that matters, not only an improbable one."""
    min_sigma: float = 0.02
    """Floor of the standard deviation (log space), so that a very quiet run does not cry wolf."""
    persist_steps: int = 8
    """Unusual steps in a row that make a spike sustained; fewer are transient."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    close_z_score: float = 3.0
    """Normal again means below this many standard deviations."""
    readmit_steps: int = 40
    """Unusual steps in a row after which the new level is the new normal."""


MOVED = 4.0
"""Times its own normal that the gradient norm must have moved to corroborate a lasting loss."""
BEYOND = 2.0
"""And times the factor by which the loss itself rose."""

SOLVED = 0.05
"""Losses below this fraction of the first ones count as this fraction: of a task that is learnt, what is left of the
loss differs by any factor from batch to batch."""
FIRST_LOSSES = 8
FALLS = 0.97
"""A loss whose last four values lie below this fraction of the four before is coming down."""


class LossSpike:
    """A spike of the loss. One that lasts interrupts when the gradient norm left its own normal with it or a
    model that had learnt does worse than guessing; the loss alone also lasts where the data became harder.
    """

    def __init__(self, config: LossSpikeConfig, facts: RunFacts) -> None:
        self._rule = SpikeRule("loss_spike", config)
        self._guessing = log(facts.vocab_size) if facts.vocab_size and facts.vocab_size > 1 else inf
        self._norms = Baseline(min_sigma=0.1)
        self._now: deque[tuple[float, float]] = deque(maxlen=8)  # (log norm, loss) of the last steps
        self._first: list[float] = []  # the first losses seen
        self._floor = 0.0

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not signals.finite or signals.grad_norm <= 0:
            return self._rule.observe(signals.step, signals.loss)
        norm = log(signals.grad_norm)
        if len(self._first) < FIRST_LOSSES:
            self._first.append(signals.loss)
            self._set_floor()
        self._now.append((norm, signals.loss))
        value = self._with_floor(signals.loss)
        findings = self._rule.observe(signals.step, value, self._alarm, grad_norm=signals.grad_norm)
        if not self._rule.incident.is_open:
            self._norms.accept(norm)
        return findings

    def _set_floor(self) -> None:
        self._floor = SOLVED * median(self._first) if self._first else 0.0

    def _with_floor(self, loss: float) -> float:
        floor = self._floor
        if loss <= 0 or floor <= 0 or loss >= 4 * floor:
            return loss
        center = self._rule.baseline.center
        solved = center is not None and center <= log(1.01 * floor)
        return floor if loss < (4 * floor if solved else floor) else loss

    def _alarm(self) -> str | None:
        if len(self._now) < 4 or self._norms.center is None:
            return None
        norms, losses = zip(*self._now, strict=True)
        if median(losses) < 2 * self._floor:
            return None
        normal = exp(self._rule.baseline.center or 0.0)
        # The gradient of a larger loss is larger.
        rise = log(median(losses[-4:]) / normal) if min(losses) > 0 and normal > 0 else 0.0
        if abs(median(norms[-4:]) - self._norms.center) > max(log(MOVED), rise + log(BEYOND)):
            return "norm"
        half = len(losses) // 2
        falls = median(losses[half:]) < FALLS * median(losses[:half])
        return "untrained" if median(losses[-4:]) > self._guessing > 1.1 * normal and not falls else None

    def rebase(self) -> None:
        self._rule.rebase()
        self._norms = Baseline(min_sigma=0.1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rule": self._rule.state_dict(),
            "norms": self._norms.state_dict(),
            "now": [list(pair) for pair in self._now],
            "first": list(self._first),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rule.load_state_dict(state["rule"])
        self._norms.load_state_dict(state["norms"])
        self._now = deque(((norm, loss) for norm, loss in state["now"]), maxlen=8)
        self._first = list(state["first"])
        self._set_floor()
