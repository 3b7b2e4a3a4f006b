"""Tells a GradScaler that is finding its scale (normal) from gradients that really overflow."""

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class NonFiniteConfig:
    """When NaN or infinity is real, and when it is only the fp16 scaler finding its scale."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs (the update guard of the training loop works without it)."""
    persist_steps: int = 3
    """Non-finite steps in a row that make it sustained."""
    close_steps: int = 16
    """Finite steps in a row that end a sustained finding."""
    overflows_before_first_success: int = 25
    """fp16: overflows in a row that are the scaler's first calibration, before its first good step."""
    overflows_in_a_row: int = 8
    """fp16: overflows in a row that are no longer normal, after the first good step."""
    overflow_window: int = 50
    """fp16: steps over which overflows are counted."""
    overflows_in_window: int = 10
    """fp16: overflows within overflow_window that are no longer normal, after the first good step."""

    def __post_init__(self) -> None:
        for name in (
            "persist_steps",
            "close_steps",
            "overflows_before_first_success",
            "overflows_in_a_row",
            "overflow_window",
            "overflows_in_window",
        ):
            require(getattr(self, name) >= 1, f"non_finite.{name}", getattr(self, name), ">= 1")


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
