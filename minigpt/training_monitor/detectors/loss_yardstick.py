"""What the losses of a run can tell: what it began with, what guessing costs, what the objective may do by itself."""

from math import isfinite, log
from typing import Any

from minigpt.training_monitor.detectors.untrained_loss import UntrainedLoss
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

LEARNT = 0.9
"""A loss below this fraction of the untrained one shows that the run has learnt something."""
KNOWS = 0.7
"""A loss below this fraction of the untrained one is that of a model that still knows most of what it learnt."""
SOLVED = 0.05
"""Losses below this fraction of the first ones count as this fraction: there any factor is noise."""
MOVING = 3.0
"""Of a loss that is not that of tokens nobody knows what it stands for: an adversary's success, a return. It is worse
than untrained at so many times its first values, and far from its best at so many times that."""


class LossYardstick:
    """All in natural logarithms of the loss."""

    def __init__(self, facts: RunFacts) -> None:
        self._untrained = UntrainedLoss(facts)
        self._tokens_seen = facts.vocab_size is not None
        self.of_tokens = True
        """Whether it is the loss of a model of tokens, which means the same all along; a bare record is taken for one,
        a model that is watched and never called with tokens is not."""
        self._has_floor = True

    def take(self, signals: StepSignals) -> float | None:
        """The loss of a step, of one that is nearly gone no less than SOLVED of the first; None where a factor of it
        means nothing: it is not finite, or may be negative."""
        if isfinite(signals.loss) and signals.loss <= 0:
            self._has_floor = False
        if not (isfinite(signals.loss) and self._has_floor):
            return None
        value = log(signals.loss)
        if self._untrained.first is not None:
            value = max(value, self._untrained.first + log(SOLVED))
        self._untrained.note(signals.step, value)
        self._tokens_seen = self._tokens_seen or signals.batch is not None
        self.of_tokens = self._tokens_seen or (self.of_tokens and signals.parameters is None)
        return value

    @property
    def untrained(self) -> float | None:
        """That of a model that knows nothing; None if unknown."""
        return self._untrained.level

    @property
    def least_rise(self) -> float:
        """How far above its best a loss must be, beyond what its objective may do by itself."""
        return 0.0 if self.of_tokens else log(MOVING)

    def learnt(self, best: float | None) -> bool:
        """Whether there is anything to lose: a loss that never came down has no best to be far from."""
        return self.untrained is None or best is None or best <= self.untrained + log(LEARNT)

    def knows(self, now: float) -> bool:
        """Whether a model with this loss still knows most of what can be learnt."""
        return self.untrained is not None and now < self.untrained + log(KNOWS)

    def state_dict(self) -> dict[str, Any]:
        return {
            "untrained": self._untrained.state_dict(),
            "of_tokens": self.of_tokens,
            "tokens_seen": self._tokens_seen,
            "has_floor": self._has_floor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._untrained.load_state_dict(state["untrained"])
        self.of_tokens, self._tokens_seen = state["of_tokens"], state["tokens_seen"]
        self._has_floor = state["has_floor"]
