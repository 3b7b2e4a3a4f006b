"""Whether the training itself has changed: gradient norms and updates against those of the time when all was well."""

from collections import deque
from math import isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.signals import StepSignals

RECENT = 16
"""Values whose median is how it is now."""
FEWEST = 4


class Unrest:
    """Log of the gradient norm and of the typical group's update ratio, now and then.

    Other data, a harder task or a feature being learnt change a loss or an activation, and leave the gradients and
    the updates within a factor of what they were; what is broken moves them too.
    """

    def __init__(self) -> None:
        self._norms: deque[float] = deque(maxlen=RECENT)
        self._updates: deque[float] = deque(maxlen=RECENT)
        self._calm: tuple[float | None, float | None] = (None, None)

    def note(self, signals: StepSignals) -> None:
        """Takes a step's gradient norm and update ratios."""
        if isfinite(signals.grad_norm) and signals.grad_norm > 0:
            self._norms.append(log(signals.grad_norm))
        updates = [ratio for ratio in signals.update_ratios.values() if ratio > 0 and isfinite(ratio)]
        if updates:
            self._updates.append(log(median(updates)))

    def settle(self) -> None:
        """All is well now: later steps are compared with the last ones."""
        self._calm = (_level(self._norms), _level(self._updates))

    def risen(self, factor: float) -> bool:
        """Whether gradient norms or updates are `factor` times what they were."""
        levels = zip((_level(self._norms), _level(self._updates)), self._calm, strict=True)
        return any(now is not None and then is not None and now - then > log(factor) for now, then in levels)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self._norms), "updates": list(self._updates), "calm": list(self._calm)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._norms = deque(state["norms"], maxlen=RECENT)
        self._updates = deque(state["updates"], maxlen=RECENT)
        norm, update = state["calm"]
        self._calm = (norm, update)


def _level(values: deque[float]) -> float | None:
    return median(values) if len(values) >= FEWEST else None
