"""Whether the training itself has changed: gradient norms and updates against those of the time when all was well."""

from collections import deque
from collections.abc import Sequence
from math import inf, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.signals import StepSignals

RECENT = 16
"""Values whose median is how it is now."""
FEWEST = 4

Row = float | tuple[float, ...]
"""One step: a logarithm, or all groups' update ratios, of whose median the logarithm has yet to be taken."""
Levels = tuple[float | None, float | None]


class Unrest:
    """Log of the gradient norm and of the typical group's update ratio, now and then; taken when somebody asks.

    Other data, a harder task or a feature being learnt change a loss or an activation, and leave the gradients and
    the updates within a factor of what they were; what is broken moves them too.
    """

    def __init__(self) -> None:
        self._norms: deque[Row] = deque(maxlen=RECENT)
        self._updates: deque[Row] = deque(maxlen=RECENT)
        self._calm: Levels = (None, None)
        self._settled: tuple[Sequence[Row], Sequence[Row]] | None = None
        """What `_calm` is to be taken from."""

    def note(self, signals: StepSignals) -> None:
        """Takes a step's gradient norm and update ratios."""
        if isfinite(signals.grad_norm) and signals.grad_norm > 0:
            self._norms.append(log(signals.grad_norm))
        updates = tuple(signals.update_ratios.values())
        if not 0.0 < sum(updates) < inf:
            updates = tuple(ratio for ratio in updates if 0 < ratio < inf)
        if updates:
            self._updates.append(updates)

    def settle(self) -> None:
        """All is well now: later steps are compared with the last ones."""
        self._settled = (tuple(self._norms), tuple(self._updates))

    def risen(self, factor: float, *, explained: float = 0.0) -> bool:
        """Whether gradient norms or updates are `factor` times what they were; `explained` (log) of the norms' rise
        is due to the loss: the gradient of a larger loss is larger, with nothing broken."""
        levels = zip(
            (_level(self._norms), _level(self._updates)),
            self._calm_levels(),
            (log(factor) + max(explained, 0.0), log(factor)),
            strict=True,
        )
        return any(now is not None and then is not None and now - then > least for now, then, least in levels)

    def updates_risen(self, factor: float) -> bool | None:
        """Whether the updates alone are `factor` times what they were; None if unknown."""
        now, then = _level(self._updates), self._calm_levels()[1]
        return None if now is None or then is None else now - then > log(factor)

    def _calm_levels(self) -> Levels:
        if self._settled is not None:
            norms, updates = self._settled
            self._calm, self._settled = (_level(norms), _level(updates)), None
        return self._calm

    def state_dict(self) -> dict[str, Any]:
        return {
            "norms": [_logarithm(row) for row in self._norms],
            "updates": [_logarithm(row) for row in self._updates],
            "calm": list(self._calm_levels()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._norms = deque(state["norms"], maxlen=RECENT)
        self._updates = deque(state["updates"], maxlen=RECENT)
        norm, update = state["calm"]
        self._calm, self._settled = (norm, update), None


def _logarithm(row: Row) -> float:
    return log(median([ratio for ratio in row if ratio > 0])) if isinstance(row, tuple) else row


def _level(rows: Sequence[Row]) -> float | None:
    return median([_logarithm(row) for row in rows]) if len(rows) >= FEWEST else None
