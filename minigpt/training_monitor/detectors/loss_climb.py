"""Whether the loss climbs: steadily over a window, or steeply over half of it."""

from typing import Any

from minigpt.training_monitor.detectors.loss_excursion import Thirds, log_mean
from minigpt.training_monitor.detectors.step_window import StepWindow

CLIMBING_VALUES = 3
"""Losses in a row at which the window must have climbed: a sparse record has one or two in persist_steps."""
FEWEST = 12
"""Losses from which a steep climb over half a window can be told."""


class LossClimb:
    """Since when, and at how many losses in a row."""

    def __init__(self, persist_steps: int) -> None:
        self._persist_steps = persist_steps
        self._since: int | None = None
        self._count = 0

    def holds(
        self, step: int, window: StepWindow, half: StepWindow | None, margin: float, steep_margin: float
    ) -> bool:
        """Whether the loss has climbed for long enough: by more than `margin` (log) over a window that is full, or by
        `steep_margin` over the half, where one is given."""
        steady = window.is_full and _rises(window, margin)
        steep = (
            not steady
            and half is not None
            and len(half) >= FEWEST
            and _rises(half, max(margin, steep_margin))
        )
        if not steady and not steep:
            self.forget()
            return False
        self._since = self._since or step
        self._count += 1
        return self._count >= CLIMBING_VALUES and step - self._since >= self._persist_steps

    def forget(self) -> None:
        """It does not climb."""
        self._since, self._count = None, 0

    def state_dict(self) -> dict[str, Any]:
        return {"since": self._since, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._since, self._count = state["since"], state["count"]


def _rises(window: StepWindow, margin: float) -> bool:
    """By its medians and by its means."""
    medians = window.thirds()
    if medians is None or not _climb(medians, margin):
        return False
    means = window.thirds(log_mean)
    return means is not None and _climb(means, margin)


def _climb(thirds: Thirds, margin: float) -> bool:
    """Whether each third lies well above the one before: a step up, however placed, is no climb."""
    first, middle, last = thirds
    share = 0.25 * (last - first)
    return last - first > margin and last - middle > share and middle - first > share
