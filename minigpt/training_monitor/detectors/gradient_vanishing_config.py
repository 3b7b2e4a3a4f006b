"""When small gradients are called gradient_vanishing."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class VanishingConfig:
    """When small gradients are called gradient_vanishing."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 100
    """The first step at which this rule may interrupt; earlier it only notes events."""
    floor: float = 1e-6
    """Absolute floor of the norm; counts only where the run's own normal is above it. 0: no floor."""
    drop_ratio: float = 0.05
    """Scale-free: a norm below this fraction of the run's normal (corrected for a falling loss) is low."""
    decline_ratio: float = 0.125
    """Scale-free: a norm that falls below this fraction of itself within decline_steps declines."""
    decline_steps: int = 40
    """Steps over which a decline, and whether the loss stands still, are judged."""
    persist_steps: int = 15
    """Steps a low norm must last before it is sustained."""
    max_loss_improvement: float = 0.05
    """The loss stands still when it improved by less than this fraction over decline_steps."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    eps_ratio: float = 3.0
    """Adam is no longer scale-free when the RMS of most gradients is below this many times its eps."""
    eps_steps: int = 10
    """Steps for which they must be."""

    def __post_init__(self) -> None:
        rule = "gradient_vanishing"
        require(self.first_step >= 0, f"{rule}.first_step", self.first_step, ">= 0")
        require(self.floor >= 0, f"{rule}.floor", self.floor, ">= 0")
        require(0 < self.drop_ratio < 1, f"{rule}.drop_ratio", self.drop_ratio, "between 0 and 1")
        require(
            0 < self.decline_ratio < 1,
            f"{rule}.decline_ratio",
            self.decline_ratio,
            "between 0 and 1",
        )
        require(self.decline_steps >= 6, f"{rule}.decline_steps", self.decline_steps, ">= 6")
        require(self.persist_steps >= 2, f"{rule}.persist_steps", self.persist_steps, ">= 2")
        require(
            0 < self.max_loss_improvement < 1,
            f"{rule}.max_loss_improvement",
            self.max_loss_improvement,
            "between 0 and 1",
        )
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")
        require(self.eps_ratio > 0, f"{rule}.eps_ratio", self.eps_ratio, "> 0")
        require(self.eps_steps >= 2, f"{rule}.eps_steps", self.eps_steps, ">= 2")
