"""When to look whether a model sees the future: seldom, but never too late."""

from collections import deque
from collections.abc import Container
from dataclasses import astuple, dataclass, replace
from math import isfinite
from typing import Any

FIRST_TRIES = 3
"""Looks at the start of a process, until it could be told."""
SUSPICION_EVERY = 10
"""Steps between looks, or a few more, while a finding suggests it."""
SUGGESTED_BY = "loss_collapse"
"""The finding; it is every rank's alike, as the loss is. (Of labels that leak the loss falls, too.)"""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the steps up to `step` tell."""

    step: int = 0
    tries: int = 0
    told: bool = False
    looked_at: int = 0
    loss_then: float | None = None
    wanted: bool = False


class CausalityBeat:
    """Due at the first odd steps; when the loss has fallen to `again_below` of what it was at the last look, some ten
    times in a long training; and while the loss is too good to be true.

    What decides about a step comes from the steps before the one before it, those that a host which reads the device
    one step late knows; and of two steps running only one is due. So a run on CPU, on CUDA, or resumed looks at the
    very same steps.
    """

    def __init__(self, again_below: float) -> None:
        self._again_below = again_below
        self._known: deque[_Known] = deque([_Known()], maxlen=2)

    def is_due(self, step: int) -> bool:
        """Whether to look in this step."""
        early = [known for known in self._known if known.step <= step - 2]
        known = early[-1] if early else self._known[0]
        return step % 2 == 1 and (known.wanted or (not known.told and known.tries < FIRST_TRIES))

    def note(self, step: int, loss: float, influence: float | None, open_findings: Container[str]) -> None:
        """A step's numbers, once they are known."""
        known = self._known[-1]
        if self.is_due(step):
            known = replace(known, tries=known.tries + 1, looked_at=step, wanted=False, loss_then=None)
        known = replace(known, step=step, told=known.told or influence is not None)
        if isfinite(loss):
            then = loss if known.loss_then is None else known.loss_then
            fell = 0 < loss < self._again_below * then
            suggested = SUGGESTED_BY in open_findings and step - known.looked_at >= SUSPICION_EVERY - 1
            known = replace(known, loss_then=then, wanted=known.wanted or fell or suggested)
        self._known.append(known)

    def state_dict(self) -> list[Any]:
        return [list(astuple(known)) for known in self._known]

    def load_state_dict(self, state: list[Any]) -> None:
        self._known = deque((_Known(*values) for values in state), maxlen=2)
