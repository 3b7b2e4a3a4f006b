"""What updates and gradients were over some hundred steps; a short normal follows a decline of tens of steps."""

from typing import Any

RATE = 0.01
"""Weight of the newest value."""


class SlowNormal:
    """Moving averages of the log update per rate, and of the log gradient that explains it."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self._update: float | None = state["update"] if state else None
        self._gradient: float | None = state["gradient"] if state else None

    def accept(self, update: float, gradient: float | None) -> None:
        """Takes a normal step in."""
        self._update = update if self._update is None else self._update + RATE * (update - self._update)
        if gradient is not None:
            usual = gradient if self._gradient is None else self._gradient
            self._gradient = usual + RATE * (gradient - usual)

    def fall(self, update: float, gradient: float | None) -> float:
        """How far the log update lies below, beyond what smaller gradients explain; 0 while nothing is known."""
        if self._update is None:
            return 0.0
        if gradient is None or self._gradient is None:
            return self._update - update
        return self._update - update - max(0.0, self._gradient - gradient)

    def state(self) -> dict[str, Any]:
        return {"update": self._update, "gradient": self._gradient}
