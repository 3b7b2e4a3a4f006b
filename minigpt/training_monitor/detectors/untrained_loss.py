"""The loss of a model that knows nothing."""

from math import log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.run_facts import RunFacts

FIRST_STEP = 10
"""Losses are those of an untrained model when the first of them is not later than this."""


class UntrainedLoss:
    """Its log: that of guessing, or of the first losses if they lie lower (a scaled loss)."""

    def __init__(self, facts: RunFacts) -> None:
        self._guessing = log(log(facts.vocab_size)) if facts.vocab_size and facts.vocab_size > 1 else None
        self._resumed = facts.resumed
        self.first: float | None = None
        """Median of the first log losses seen so far; None before them."""
        self.level: float | None = None
        """None when neither is known."""
        self._take_first([])

    def note(self, step: int, value: float) -> None:
        """Takes the log loss of a step."""
        if len(self._first) < 3 and not self._resumed and (self._first or step <= FIRST_STEP):
            self._take_first([*self._first, value])

    def _take_first(self, losses: list[float]) -> None:
        self._first = losses
        self.first = median(losses) if losses else None
        known = [
            level for level in (self.first if len(losses) == 3 else None, self._guessing) if level is not None
        ]
        self.level = min(known, default=None)

    def state_dict(self) -> dict[str, Any]:
        return {"first": list(self._first)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._take_first(list(state["first"]))
