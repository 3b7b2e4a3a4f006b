"""What the monitor is told about one finished step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite


@dataclass(frozen=True, slots=True)
class StepSignals:
    """One step as numbers on the host; loss and norms may be NaN or infinite. Steps count from 1."""

    step: int
    loss: float
    """Mean cross-entropy of the step's targets, nats per token."""
    grad_norm: float
    """Global norm before clipping and after unscaling."""
    lr: float = 0.0
    group_norms: Mapping[str, float] = field(default_factory=dict)
    """Gradient norm of each layer group, in model order."""
    clipped: bool = False
    update_skipped: bool = False
    """Whether the guard on the device refused the update."""
    scaler_scale: float | None = None
    """GradScaler's scale; None: no scaler."""
    scaler_overflow: bool = False
    """Whether GradScaler found a non-finite gradient."""
    tokens: int = 0
    """Targets of this step."""
    tokens_seen: int = 0
    """Targets since the start of the run."""
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    mfu: float | None = None
    """Model FLOPs utilisation, 0..1."""
    memory_bytes: int | None = None
    """Peak device memory."""
    epoch: int = 0
    position: int = 0
    """Windows consumed since the start of the run."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are both numbers."""
        return isfinite(self.loss) and isfinite(self.grad_norm)

    def first_non_finite_group(self) -> str | None:
        """Name of the first group, in model order, whose norm is NaN or infinite."""
        return next((name for name, norm in self.group_norms.items() if not isfinite(norm)), None)
