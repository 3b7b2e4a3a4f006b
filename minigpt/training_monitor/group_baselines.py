"""The usual gradient norm of each layer group, to say which layer moved furthest from its own normal."""

from collections import deque
from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.signals import StepSignals

STEPS = 16
"""Accepted steps whose median is a group's normal: remembered on every step, computed only when blaming."""
TINIEST = 1e-300


class GroupBaselines:
    """The group norms of the last accepted steps."""

    def __init__(self) -> None:
        self._steps: deque[dict[str, float]] = deque(maxlen=STEPS)

    def accept(self, signals: StepSignals) -> None:
        """Remembers a normal, finite step."""
        if signals.group_norms:
            self._steps.append(dict(signals.group_norms))

    def most_changed(self, signals: StepSignals, *, upwards: bool) -> dict[str, float | str]:
        """The group furthest from its own normal: its name and how many times that normal; {} if unknown."""
        changes: dict[str, float] = {}
        for name, norm in signals.group_norms.items():
            history = [log(max(step[name], TINIEST)) for step in self._steps if name in step]
            if history and isfinite(norm):
                changes[name] = log(max(norm, TINIEST)) - median(history)
        if not changes:
            return {}
        name = (max if upwards else min)(changes, key=changes.__getitem__)
        return {"group": name, "group_ratio": exp(min(changes[name], 700.0))}

    def state_dict(self) -> dict[str, Any]:
        return {"steps": [dict(step) for step in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps = deque((dict(step) for step in state["steps"]), maxlen=STEPS)
