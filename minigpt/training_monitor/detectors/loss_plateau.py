"""loss_plateau: well past warm-up the model still knows nothing."""

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
class LossPlateauConfig:
    """When a loss that never fell is called loss_plateau. A converged run stands still too and is healthy, so only
    a run seen from its start is judged."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 200
    """The first step at which this rule may speak; also not before warm-up is over by a quarter of this."""
    min_improvement: float = 0.02
    """A loss that has not fallen by this fraction of its first value has not begun to learn; nor has one that is not
    this fraction below that of knowing only the tokens' frequencies, and stands still there."""
    window_steps: int = 48
    """Steps whose median loss counts."""
    close_steps: int = 16
    """Steps below that end the finding."""

    def __post_init__(self) -> None:
        name = "loss_plateau"
        require(self.first_step >= 1, f"{name}.first_step", self.first_step, ">= 1")
        require(
            0 < self.min_improvement < 1, f"{name}.min_improvement", self.min_improvement, "between 0 and 1"
        )
        require(self.window_steps >= 8, f"{name}.window_steps", self.window_steps, ">= 8")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")


FROM_START = 3
"""A run counts as seen from its start if its first step is no later."""
NEAR_GUESSING = 0.8
"""A run that begins below this fraction of ln(vocabulary) starts from trained weights."""


STILL = log(0.99)
"""A loss that falls more than this from the first half of its window to the second is on its way."""


class LossPlateau:
    """The loss of a run from scratch is where it began, or stands where it only knows how frequent each token is."""

    def __init__(self, config: LossPlateauConfig, facts: RunFacts) -> None:
        self._config = config
        self._speaks_at = max(config.first_step, facts.warmup_steps + config.first_step // 4)
        self._guessing = log(facts.vocab_size) if facts.vocab_size and facts.vocab_size > 1 else None
        self._unigram = log(facts.unigram_loss) if facts.unigram_loss else None
        self._incident = Incident("loss_plateau")
        self._window = StepWindow(config.window_steps)
        self._first: list[float] = []
        self._over = facts.resumed or self._guessing is None  # nothing to tell a beginning from a plateau by

    def observe(self, signals: StepSignals) -> list[Finding]:
        if self._over or not isfinite(signals.loss) or signals.loss <= 0:
            return []
        value = log(signals.loss)
        if len(self._first) < 3:
            self._over = not self._first and signals.step > FROM_START
            self._first.append(value)
            return []
        self._window.add(signals.step, value)
        if signals.step < self._speaks_at or (signals.step % 4 and not self._incident.is_open):
            return []
        level, first = median(self._window.values), median(self._first)
        untrained = self._guessing is not None and first > log(NEAR_GUESSING * self._guessing)
        evidence = {
            "value": exp(level),
            "normal": exp(first),
            "loss": signals.loss,
            "loss_improvement": 1 - exp(level - first),
        }
        evidence["lr"] = signals.lr
        least = log(1 - self._config.min_improvement)
        unmoved = level > first + least
        only_frequencies = self._unigram is not None and level > self._unigram + least
        if only_frequencies and not unmoved:
            evidence["unigram"] = exp(self._unigram or 0.0)
        if untrained and (unmoved or (only_frequencies and self._stands())):
            return self._incident.bad(signals.step, evidence) + self._incident.sustain(signals.step, evidence)
        findings = self._incident.good(signals.step, self._config.close_steps, evidence)
        # It has learnt: from here on standing still may be convergence.
        self._over = not self._incident.is_open and not (untrained and only_frequencies)
        return findings

    def _stands(self) -> bool:
        half = len(self._window) // 2
        values = self._window.values
        return self._incident.is_open or median(values[half:]) > median(values[:half]) + STILL

    def rebase(self) -> None:
        self._over = not self._incident.is_open

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "window": self._window.state(),
            "first": list(self._first),
            "over": self._over,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._window = StepWindow(self._config.window_steps, state["window"])
        self._first = list(state["first"])
        self._over = state["over"]
