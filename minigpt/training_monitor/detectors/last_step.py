"""What the step before was like: the update that a step measures is the one that ended the step before it."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from minigpt.training_monitor.signals import StepSignals


@dataclass
class LastStep:
    """The newest step taken in; compare with it, then `take` the present one."""

    step: int | None = None
    lr: float = 0.0
    skipped: bool = False
    finite: bool = True
    grad_norm: float = 0.0

    def applied_its_update(self, step: int) -> bool:
        """Whether an update was due between it and `step`; a gap in the record surely holds one."""
        if self.step is None:
            return False
        return step > self.step + 1 or (self.finite and not self.skipped)

    def is_just_before(self, step: int) -> bool:
        """Whether no step lies between."""
        return self.step is not None and step == self.step + 1

    def take(self, signals: StepSignals) -> None:
        """The present step becomes the last one."""
        self.step = signals.step
        self.lr = signals.lr
        self.skipped = signals.update_skipped
        known = isfinite(signals.grad_norm)
        self.finite = known and isfinite(signals.loss)
        self.grad_norm = signals.grad_norm if known else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "lr": self.lr,
            "skipped": self.skipped,
            "finite": self.finite,
            "grad_norm": self.grad_norm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.lr = state["lr"]
        self.skipped = state["skipped"]
        self.finite = state["finite"]
        self.grad_norm = state["grad_norm"]
