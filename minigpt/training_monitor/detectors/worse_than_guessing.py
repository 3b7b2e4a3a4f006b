"""Whether the loss stays above that of a model that knows nothing, and is not on its way down."""

from collections.abc import Sequence
from typing import Any

from minigpt.training_monitor.baseline import median


class WorseThanGuessing:
    """A model that is confidently wrong; what it meets new data with comes down from the first step on."""

    def __init__(self, persist_steps: int, window_steps: int, recovery: float) -> None:
        self._persist_steps = persist_steps
        self._window_steps = window_steps
        self._recovery = recovery
        self.since: int | None = None
        self._peak = 0.0  # highest log loss since it was wrong first, or for a window
        self._peak_since: int | None = None

    def lasts(self, step: int, values: Sequence[float], threshold: float) -> bool:
        """Whether the last log losses (at least four) lie above `threshold`, and have for persist_steps."""
        half = len(values) // 2
        newest, older = median(values[-half:]), median(values[:half])
        if min(newest, older) <= threshold:
            self.forget()
            return False
        if self._peak_since is None or step - self._peak_since >= self._window_steps:
            self._peak, self._peak_since = newest, step  # it may have come down at first, and stand now
        self._peak = max(self._peak, newest)
        stands = newest > max(older - self._recovery, self._peak - 2 * self._recovery)
        self.since = (self.since or step) if stands else None
        return self.since is not None and step - self.since >= self._persist_steps

    def forget(self) -> None:
        """It is not."""
        self.since = self._peak_since = None

    def state_dict(self) -> dict[str, Any]:
        return {"since": self.since, "peak": self._peak, "peak_since": self._peak_since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.since, self._peak, self._peak_since = state["since"], state["peak"], state["peak_since"]
