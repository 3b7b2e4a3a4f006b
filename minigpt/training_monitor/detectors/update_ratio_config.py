"""When updates are called too large or too small for the weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class UpdateRatioConfig:
    """When ||update|| / ||weights|| of the matrices is called update_ratio_high or update_ratio_low."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    high: float = 0.15
    """A matrix whose update is more than this fraction of it, step after step, is written anew, not trained."""
    early_high: float = 0.3
    """The same for the first early_steps, in which Adam without warm-up takes its largest steps; and then only if the
    loss is none the better for them."""
    early_steps: int = 20
    """Steps from the start for which early_high counts."""
    rise: float = 8.0
    """Or so many times the run's own normal, beyond what the learning rate explains."""
    alone: float = 12.0
    """Or one matrix so many times, while the rest update as ever and its own gradient does not explain it; or so many
    times its like in the other layers."""
    fall: float = 25.0
    """So many times below the run's own normal, beyond what learning rate and gradients explain, is low."""
    persist_steps: int = 3
    """Steps that large updates must last."""
    low_persist_steps: int = 15
    """Steps that small updates must last."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        name = "update_ratio"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(0 < self.high < 1, f"{name}.high", self.high, "between 0 and 1")
        require(
            self.early_high >= self.high,
            f"{name}.early_high",
            self.early_high,
            f"at least high = {self.high}",
        )
        require(self.early_steps >= 0, f"{name}.early_steps", self.early_steps, ">= 0")
        require(self.rise > 1, f"{name}.rise", self.rise, "> 1")
        require(self.alone > 1, f"{name}.alone", self.alone, "> 1")
        require(self.fall > 1, f"{name}.fall", self.fall, "> 1")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.low_persist_steps >= 2, f"{name}.low_persist_steps", self.low_persist_steps, ">= 2")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
