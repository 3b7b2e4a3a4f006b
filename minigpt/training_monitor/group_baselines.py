"""The usual gradient norm of each layer group, to say which layer moved furthest from its own normal."""

from collections import deque
from collections.abc import Sequence
from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.signals import StepSignals

STEPS = 16
"""Accepted steps whose median is a group's normal: remembered on every step, computed only when blaming."""
TINIEST = 1e-300


UNIFORM_SPREAD = 0.35
"""Groups that moved by one factor differ by less than this fraction of it (log space)."""


def uniform_factor(steps: Sequence[dict[str, float]]) -> float | None:
    """Log of the one factor by which all groups moved, from their changes at several steps; None if they moved
    by different ones, or are too few to tell (at least three)."""
    names = [name for name in steps[-1] if all(name in step for step in steps)] if steps else []
    if len(names) < 3:
        return None
    shifts = [median([step[name] for step in steps]) for name in names]
    middle = median(shifts)
    return middle if max(shifts) - min(shifts) < UNIFORM_SPREAD * abs(middle) else None


class GroupBaselines:
    """The group norms of the last accepted steps."""

    def __init__(self) -> None:
        self._steps: deque[dict[str, float]] = deque(maxlen=STEPS)

    def accept(self, signals: StepSignals) -> None:
        """Remembers a normal, finite step."""
        if signals.group_norms:
            self._steps.append(dict(signals.group_norms))

    def changes(self, signals: StepSignals) -> dict[str, float]:
        """Log of how many times its own normal each group's norm is; {} if unknown."""
        changes: dict[str, float] = {}
        for name, norm in signals.group_norms.items():
            history = [log(max(step[name], TINIEST)) for step in self._steps if step.get(name, 0.0) > 0]
            if history and isfinite(norm):
                changes[name] = log(max(norm, TINIEST)) - median(history)
        return changes

    def most_changed(self, signals: StepSignals, *, upwards: bool) -> dict[str, float | str]:
        """The group furthest from its own normal: its name and how many times that normal; {} if unknown."""
        changes = self.changes(signals)
        if not changes:
            return {}
        name = (max if upwards else min)(changes, key=changes.__getitem__)
        return {"group": name, "group_ratio": exp(min(changes[name], 700.0))}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": [dict(step) for step in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = deque((dict(step) for step in state["steps"]), maxlen=STEPS)
