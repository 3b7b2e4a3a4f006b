"""Tells a GradScaler that is finding its scale (normal) from gradients that really overflow."""

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class NonFiniteConfig:
    """When NaN or infinity is called nan_loss or non_finite_gradient."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs (the update guard of the training loop works without it)."""
    persist_steps: int = 3
    """Non-finite steps in a row that make it sustained."""
    close_steps: int = 16
    """Finite steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in ("persist_steps", "close_steps"):
            require(getattr(self, name) >= 1, f"non_finite.{name}", getattr(self, name), ">= 1")


@dataclass(frozen=True, kw_only=True)
class Fp16Config:
    """When a GradScaler's work is called overflow_streak, scale_collapse or gradient_underflow."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether these three rules run (what an overflow costs of the policy's budget is judged without them)."""
    overflows_before_first_success: int = 25
    """Overflows in a row that are the scaler's first calibration, before its first good step."""
    overflows_in_a_row: int = 8
    """Overflows in a row that are no longer normal, after the first good step."""
    overflow_window: int = 50
    """Steps over which overflows are counted."""
    overflows_in_window: int = 10
    """Overflows within overflow_window that are no longer normal, after the first good step."""
    overflows_at_one_scale: int = 4
    """Overflows in a row at an unchanged scale: nobody calls scaler.update()."""
    min_scale: float = 1.0
    """A scale below this has collapsed: fp16 cannot hold these gradients."""
    max_zero_fraction: float = 0.5
    """A matrix whose gradient has a larger share of exact zeros has underflowed, unless it always had."""
    min_underflow_share: float = 0.5
    """Share of the model's matrices that must have."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in (
            "overflows_before_first_success",
            "overflows_in_a_row",
            "overflow_window",
            "overflows_in_window",
            "close_steps",
        ):
            require(getattr(self, name) >= 1, f"fp16.{name}", getattr(self, name), ">= 1")
        at_one_scale = self.overflows_at_one_scale
        require(at_one_scale >= 2, "fp16.overflows_at_one_scale", at_one_scale, ">= 2")
        require(self.min_scale >= 0, "fp16.min_scale", self.min_scale, ">= 0")
        for name in ("max_zero_fraction", "min_underflow_share"):
            require(0 < getattr(self, name) < 1, f"fp16.{name}", getattr(self, name), "between 0 and 1")


class OverflowJudge:
    """Whether the fp16 overflow of a step is the scaler's ordinary business."""

    def __init__(self, config: Fp16Config) -> None:
        self._config = config
        self._in_a_row = 0
        self._at_one_scale = 0
        self._scale: float | None = None
        self._had_success = False
        self._recent: deque[bool] = deque(maxlen=config.overflow_window)

    def is_normal(self, signals: StepSignals) -> bool:
        """Call once a step, also for steps without a scaler or without an overflow (those are False)."""
        if signals.scaler_scale is None:
            return False
        if not signals.scaler_overflow:
            self._in_a_row = self._at_one_scale = 0
            self._had_success = True
            self._recent.append(False)
            return False
        self._in_a_row += 1
        self._at_one_scale = self._at_one_scale + 1 if signals.scaler_scale == self._scale else 1
        self._scale = signals.scaler_scale
        if self._had_success:
            self._recent.append(True)
        return self.trigger is None and signals.scaler_scale >= self._config.min_scale

    @property
    def trigger(self) -> str | None:
        """Why there were too many overflows: "in a row", "in the window" or "at one scale"; None: there were not."""
        config = self._config
        if self._at_one_scale >= config.overflows_at_one_scale:
            return "at one scale"
        if not self._had_success:
            return "in a row" if self._in_a_row >= config.overflows_before_first_success else None
        if self._in_a_row >= config.overflows_in_a_row:
            return "in a row"
        return "in the window" if self.in_window >= config.overflows_in_window else None

    @property
    def in_a_row(self) -> int:
        """Overflows up to now without a good step between them."""
        return self._in_a_row

    @property
    def in_window(self) -> int:
        """Overflows among the last overflow_window steps, after the first good one."""
        return sum(self._recent)

    def state_dict(self) -> dict[str, Any]:
        return {
            "in_a_row": self._in_a_row,
            "at_one_scale": self._at_one_scale,
            "scale": self._scale,
            "had_success": self._had_success,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._in_a_row = state["in_a_row"]
        self._at_one_scale = state["at_one_scale"]
        self._scale = state["scale"]
        self._had_success = state["had_success"]
        self._recent = deque(state["recent"], maxlen=self._config.overflow_window)
