"""When to look whether a model sees the future: seldom, but never too late."""

from collections.abc import Container
from math import isfinite
from typing import Any

FIRST_TRIES = 3
"""Steps at the start of a process in which it is tried, until it could be told."""
SUSPICION_EVERY = 10
"""Steps between looks while a finding suggests it."""
SUGGESTED_BY = "loss_collapse"
"""The finding; it is every rank's alike, as the loss is. (Of labels that leak the loss falls, too.)"""


class CausalityBeat:
    """Due at the first steps; when the loss has fallen to `again_below` of what it was at the last look, so some ten
    times in a long training; and while the loss is too good to be true."""

    def __init__(self, again_below: float) -> None:
        self._again_below = again_below
        self._tries, self._told = 0, False
        self._looked_at = 0
        self._loss_then: float | None = None
        self._wanted = False

    @property
    def is_due(self) -> bool:
        """Whether to look in the coming step."""
        return self._wanted or (not self._told and self._tries < FIRST_TRIES)

    def note_look(self, step: int) -> None:
        """It was looked (or tried) at this step."""
        self._tries += 1
        self._looked_at, self._wanted, self._loss_then = step, False, None

    def note(self, step: int, loss: float, influence: float | None, open_findings: Container[str]) -> None:
        """A step's numbers, once they are known."""
        self._told = self._told or influence is not None
        if not isfinite(loss):
            return
        if self._loss_then is None:
            self._loss_then = loss
        fell = 0 < loss < self._again_below * self._loss_then
        suggested = SUGGESTED_BY in open_findings and step - self._looked_at >= SUSPICION_EVERY - 1
        if (fell or suggested) and step > self._looked_at:
            self._wanted = True

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, f"_{name}", state[name])


STATE = ("tries", "told", "looked_at", "loss_then", "wanted")
