"""Gradients that carry the GradScaler's factor from the first step on: nobody unscaled them."""

from typing import Any

from minigpt.training_monitor.finding import Evidence
from minigpt.training_monitor.signals import StepSignals

STEPS = 8
"""Steps in a row that show it."""
YOUNG = 64
"""Steps from the first one seen in which to look: what comes later is a shift."""
LEAST_SCALE = 256.0
"""A smaller factor could be the gradients' own size."""
IMPLAUSIBLE = 500.0
"""Gradient norm of a mean loss of a few nats that no sound start has: 1 to 30 is usual, 100 in some deep stacks."""
PLAUSIBLE = (1e-3, 30.0)
"""Where the norm lies once it is divided by the scale."""
LARGEST_LOSS = 20.0
"""Nats; a larger loss (a sum) has large gradients of its own."""


class StillScaled:
    """Counts the first steps whose gradient norm is absurd as it is and usual without the scale."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._count = 0

    def evidence(self, signals: StepSignals) -> Evidence | None:
        """At the step that makes it sure; None otherwise."""
        self._first = signals.step if self._first is None else self._first
        scale = signals.scaler_scale
        if scale is None or signals.step > self._first + YOUNG or self._count >= STEPS:
            return None
        without = signals.grad_norm / scale
        scaled = scale >= LEAST_SCALE and signals.grad_norm > IMPLAUSIBLE and signals.loss < LARGEST_LOSS
        self._count = self._count + 1 if scaled and PLAUSIBLE[0] < without < PLAUSIBLE[1] else 0
        if self._count < STEPS:
            return None
        return {
            "trigger": "still scaled",
            "value": signals.grad_norm,
            "normal": without,
            "ratio": scale,
            "scaler_scale": scale,
            "loss": signals.loss,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first, self._count = state["first"], state["count"]
