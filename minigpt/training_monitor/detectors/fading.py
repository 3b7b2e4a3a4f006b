"""Whether most layers' gradients have become far smaller than when all was well."""

from collections import deque
from math import log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.group_baselines import GroupBaselines
from minigpt.training_monitor.signals import StepSignals

FADE_STEPS = 16
FADED = 3.0
"""Times smaller than before that the typical layer's gradient must be."""


class Fading:
    """Smaller gradients although the loss is higher: nothing in these targets can be learnt. Harder data do the
    opposite."""

    def __init__(self) -> None:
        self._groups = GroupBaselines()
        self._fades: deque[float] = deque(maxlen=FADE_STEPS)  # typical log change of the groups' norms
        self._accepted_at = -4

    def note(self, signals: StepSignals, *, well: bool) -> None:
        """Learns the layers' usual gradients while all is well; else how far they are from it."""
        if well:
            self._fades.clear()
            if signals.finite and signals.step - self._accepted_at >= 4:
                self._accepted_at = signals.step  # seldom: a shift is noticed late, and must not be learnt
                self._groups.accept(signals)
            return
        changes = self._groups.changes(signals) if signals.step % 2 else {}
        if len(changes) >= 3:
            self._fades.append(median(list(changes.values())))

    @property
    def holds(self) -> bool:
        return len(self._fades) == FADE_STEPS and median(self._fades) < -log(FADED)

    def state_dict(self) -> dict[str, Any]:
        return {
            "groups": self._groups.state_dict(),
            "fades": list(self._fades),
            "accepted_at": self._accepted_at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._groups.load_state_dict(state["groups"])
        self._fades = deque(state["fades"], maxlen=FADE_STEPS)
        self._accepted_at = state["accepted_at"]
