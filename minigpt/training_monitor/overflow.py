"""Tells a GradScaler that is finding its scale (normal) from gradients that really overflow."""

from collections import deque
from typing import Any

from minigpt.training_monitor.config import NonFiniteConfig
from minigpt.training_monitor.signals import StepSignals


class OverflowJudge:
    """Whether the fp16 overflow of a step is the scaler's ordinary business."""

    def __init__(self, config: NonFiniteConfig) -> None:
        self._config = config
        self._in_a_row = 0
        self._had_success = False
        self._recent: deque[bool] = deque(maxlen=config.overflow_window)

    def is_normal(self, signals: StepSignals) -> bool:
        """Call once a step, also for steps without a scaler or without an overflow (those are False)."""
        if signals.scaler_scale is None:
            return False
        if not signals.scaler_overflow:
            self._in_a_row = 0
            self._had_success = True
            self._recent.append(False)
            return False
        self._in_a_row += 1
        if not self._had_success:
            return self._in_a_row < self._config.overflows_before_first_success
        self._recent.append(True)
        few_in_a_row = self._in_a_row < self._config.overflows_in_a_row
        few_lately = sum(self._recent) < self._config.overflows_in_window
        return few_in_a_row and few_lately and signals.scaler_scale >= 1.0

    @property
    def in_a_row(self) -> int:
        """Overflows up to now without a good step between them."""
        return self._in_a_row

    def state_dict(self) -> dict[str, Any]:
        return {
            "in_a_row": self._in_a_row,
            "had_success": self._had_success,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._in_a_row = state["in_a_row"]
        self._had_success = state["had_success"]
        self._recent = deque(state["recent"], maxlen=self._config.overflow_window)
