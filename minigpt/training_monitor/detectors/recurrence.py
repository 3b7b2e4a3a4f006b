"""What comes back again and again without ever lasting: every other step, every third."""

from collections import deque
from typing import Any


class Recurrence:
    """Remembers when something began; `holds` once it began `times` times within `steps`."""

    def __init__(self, times: int, steps: int) -> None:
        self._steps = steps
        self._began: deque[int] = deque(maxlen=times)

    def note(self, step: int) -> None:
        """It began at `step` (and was over in between)."""
        self._began.append(step)

    def holds(self, step: int) -> bool:
        """Whether it is still a habit at `step`."""
        return len(self._began) == self._began.maxlen and step - self._began[0] <= self._steps

    def state_dict(self) -> dict[str, Any]:
        return {"began": list(self._began)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._began = deque(state["began"], maxlen=self._began.maxlen)
