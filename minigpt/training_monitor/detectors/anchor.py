"""The level that slow drift is measured against; a rolling normal would follow it."""

from math import log
from typing import Any

from minigpt.training_monitor.detectors.recent import Point, listed, unlisted

MIN_WARM = 40
"""Steps from the start that are no yardstick, whatever warm-up is declared."""
EARLY_FALL = 2.5
"""Times that the norm of a healthy run may fall from one provisional anchor to the next."""
ANCHOR_VALUES = 32
"""Accepted steps whose median is an anchor."""


class Anchor:
    """Provisional anchors one after the other until warm-up is over, then one for good, which is never the first: the
    few values of a sparse record soon reach past warm-up, while the norm is still falling. None lies far below the one
    before: a decline that began early must not become its own yardstick.
    """

    def __init__(self, warm_at: int) -> None:
        self.point: Point | None = None
        self._warm_at = warm_at
        self._final = False
        self._values: list[Point] = []

    def accept(self, now: Point) -> None:
        """Takes a normal step."""
        if self._final or now.step <= MIN_WARM:
            return
        self._values.append(now)
        if len(self._values) < ANCHOR_VALUES:
            return
        taken = Point.middle_of(self._values)
        self._values = []
        if self.point is not None:
            taken = taken._replace(norm=max(taken.norm, self.point.norm - log(EARLY_FALL)))
            self._final = now.step > self._warm_at
        self.point = taken

    def forget(self) -> None:
        """The run's level changed on purpose, or for good: it is taken anew."""
        self.point, self._final, self._values = None, False, []

    def state_dict(self) -> dict[str, Any]:
        return {
            "point": listed(self.point),
            "final": self._final,
            "values": [list(point) for point in self._values],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.point = unlisted(state["point"])
        self._final = state["final"]
        self._values = [Point(*values) for values in state["values"]]
