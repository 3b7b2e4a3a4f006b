"""Settings of loss_divergence."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class LossDivergenceConfig:
    """When a loss that has left its own best is called loss_divergence."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    window_steps: int = 48
    """Steps over which it is judged whether the loss climbs, stands or falls."""
    min_ratio: float = 1.06
    """A loss this many times its own best (medians of a third of the window) has left it: a suspicion."""
    climb_ratio: float = 1.12
    """So far above its best, a loss that goes on rising is climbing."""
    lasting_ratio: float = 1.25
    """Standing still so far above its own best interrupts; nearer to it, harder data explain it as well."""
    recovery: float = 0.02
    """A loss that falls by this fraction from one third of the window to the next is coming down again."""
    untrained_ratio: float = 1.05
    """A loss this many times that of a model that knows nothing, ln(vocabulary), is confidently wrong."""
    forgotten_ratio: float = 0.85
    """A loss above this fraction of it, in a run that was below forgotten_best of it, is back where it began ..."""
    forgotten_best: float = 0.6
    """... when it stands there for half of window_steps: harder data teach something from the first step on."""
    persist_steps: int = 8
    """Steps for which a climb, or a loss above the untrained one, must last."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        name = "loss_divergence"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.window_steps >= 12, f"{name}.window_steps", self.window_steps, ">= 12")
        require(self.min_ratio > 1, f"{name}.min_ratio", self.min_ratio, "> 1")
        require(self.climb_ratio > 1, f"{name}.climb_ratio", self.climb_ratio, "> 1")
        require(
            self.lasting_ratio >= self.min_ratio,
            f"{name}.lasting_ratio",
            self.lasting_ratio,
            f"at least min_ratio = {self.min_ratio}",
        )
        require(0 < self.recovery < 1, f"{name}.recovery", self.recovery, "between 0 and 1")
        require(self.untrained_ratio >= 1, f"{name}.untrained_ratio", self.untrained_ratio, ">= 1")
        require(0 < self.forgotten_best < 1, f"{name}.forgotten_best", self.forgotten_best, "between 0 and 1")
        require(
            self.forgotten_best < self.forgotten_ratio <= self.untrained_ratio,
            f"{name}.forgotten_ratio",
            self.forgotten_ratio,
            "between forgotten_best and untrained_ratio",
        )
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
