"""When a value far above its own recent normal is called a spike: gradient_exploding's settings, which loss_spike takes
over with defaults of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class ExplodingConfig:
    """When a gradient norm far above its own recent normal is called gradient_exploding."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    rule: ClassVar[str] = "gradient_exploding"

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    min_history: int = 16
    """Accepted values needed before anything can be called unusual."""
    z_score: float = 6.0
    """Robust standard deviations (1.4826 MAD, log space) above the short median that count as unusual."""
    min_ratio: float = 4.0
    """And this many times the short median: an effect that matters, not only an improbable one."""
    min_sigma: float = 0.10
    """Floor of the standard deviation (log space), so that a very quiet run does not cry wolf."""
    persist_steps: int = 8
    """Unusual steps in a row that make a spike sustained; fewer are transient."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    close_z_score: float = 3.0
    """Normal again means below this many standard deviations."""
    readmit_steps: int = 40
    """Unusual steps in a row after which the new level is the new normal."""

    def __post_init__(self) -> None:
        name = self.rule
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(self.min_history >= 4, f"{name}.min_history", self.min_history, ">= 4")
        require(self.z_score > 0, f"{name}.z_score", self.z_score, "> 0")
        require(self.min_ratio > 1, f"{name}.min_ratio", self.min_ratio, "> 1")
        require(self.min_sigma > 0, f"{name}.min_sigma", self.min_sigma, "> 0")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
        require(
            0 < self.close_z_score <= self.z_score,
            f"{name}.close_z_score",
            self.close_z_score,
            f"above 0 and at most z_score = {self.z_score}",
        )
        require(
            self.readmit_steps > self.persist_steps,
            f"{name}.readmit_steps",
            self.readmit_steps,
            f"more than persist_steps = {self.persist_steps}",
        )
