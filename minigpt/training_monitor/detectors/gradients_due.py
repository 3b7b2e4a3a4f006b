"""Which parameters have a gradient that should have moved them: the yardstick of frozen_parameter."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals

WEAK_GRADIENT = 0.1
"""A gradient below this fraction of the largest that moved the parameter lately need not move it."""
ROUNDING = 1e-5
"""A gradient whose elements are below this fraction of the typical parameter's is what rounding leaves of zero: a bias
before a normalization has no other."""
FORGET = 0.98
"""How slowly that largest gradient is forgotten, a look; looks are taken every few steps while everything moves."""


class GradientsDue:
    """Keeps the last step's gradient norms, whose update the present step measures, and the largest of each parameter
    that moved it lately."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._due: Sequence[float | None] = ()
        self._moving: list[float] = []

    def standing(self, facts: ParameterFacts, updates: Sequence[float]) -> list[bool | None]:
        """For each parameter whether it should have moved and did not; None: it had no reason to."""
        if facts.names != self._names:
            return [None] * len(facts)
        self.note(updates)
        per_element = [
            (due or 0.0) / sqrt(max(size, 1)) for due, size in zip(self._due, facts.sizes, strict=True)
        ]
        rounding = ROUNDING * median(per_element)
        standing: list[bool | None] = []
        for i, update in enumerate(updates):
            outside = facts.optimized is not None and not facts.optimized[i]
            weak = (self._due[i] or 0.0) <= WEAK_GRADIENT * self._moving[i] or per_element[i] <= rounding
            no_reason = outside or not facts.trainable[i] or weak
            standing.append(False if update > 0.0 else None if no_reason else True)
        return standing

    def note(self, updates: Sequence[float]) -> None:
        """Takes the norms of the updates that these gradients led to."""
        if len(self._due) != len(updates):
            return
        moving = self._moving or [0.0] * len(updates)
        rows = zip(updates, self._due, moving, strict=True)
        self._moving = [
            (faded if (faded := FORGET * was) > (due or 0.0) else due or 0.0) if update > 0.0 else was
            for update, due, was in rows
        ]

    def take(self, parameters: ParameterSignals) -> None:
        """The present step's gradients become the last ones."""
        names = parameters.facts.names
        if names is not self._names and names != self._names:
            self._moving = []
        self._names, self._due = names, parameters.grad_norms

    def state_dict(self) -> dict[str, Any]:
        return {"due_names": list(self._names), "due": list(self._due), "moving": list(self._moving)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names, self._due = tuple(state["due_names"]), list(state["due"])
        self._moving = list(state["moving"])
