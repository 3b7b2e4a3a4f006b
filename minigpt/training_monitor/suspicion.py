"""Whether something was lately suspected, as it was known in time for a step."""

from collections import deque
from typing import Any


class Suspicion:
    """When the youngest open finding began, as of the last steps that were judged.

    What is known for a step comes from the steps before the one before it: those that a host which reads the device
    one step late knows, so that a run on CPU, on CUDA, or resumed looks at the very same steps.
    """

    def __init__(self, lasts_steps: int) -> None:
        """`lasts_steps`: how long after it began a finding makes one look."""
        self._lasts_steps = lasts_steps
        self._known: deque[tuple[int, int | None]] = deque(maxlen=2)

    def note(self, step: int, youngest: int | None) -> None:
        """`step` has been judged, and the youngest finding now open began at `youngest`."""
        self._known.append((step, youngest))

    def is_young_at(self, step: int) -> bool:
        """Whether something was open for `step` that had begun shortly before."""
        known = [youngest for at, youngest in self._known if at <= step - 2]
        return bool(known) and known[-1] is not None and step - known[-1] <= self._lasts_steps

    def state_dict(self) -> list[Any]:
        return [list(entry) for entry in self._known]

    def load_state_dict(self, state: list[Any]) -> None:
        self._known = deque(((at, youngest) for at, youngest in state), maxlen=2)
