"""When weights that do not move are called frozen_parameter or no_update."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require


@dataclass(frozen=True, kw_only=True)
class FrozenParameterConfig:
    """When weights that do not move are called frozen_parameter (some) or no_update (all)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether these two rules run."""
    persist_steps: int = 4
    """frozen_parameter: updates in a row that leave a parameter exactly where it was; more for parameters that used
    to stand still now and then (bf16 weights too coarse for a small step, rare tokens)."""
    first_steps: int = 8
    """frozen_parameter: the same for a parameter that never moved while its like in other layers does."""
    no_update_steps: int = 3
    """no_update: updates in a row that move nothing at all."""
    recur_times: int = 5
    """no_update: or so many times ..."""
    recur_steps: int = 24
    """... within so many steps, gradients cleared in between: the step is left out now and then."""
    faded_lr_ratio: float = 0.05
    """no_update: a learning rate that went to zero by way of values below this fraction of its peak came to the end
    of its schedule, and is no finding."""
    coarse_fraction: float = 0.25
    """frozen_parameter: an update that moves a smaller share than this of the weights of most matrices, at a learning
    rate near its peak, is lost in their precision. 0: never."""
    close_steps: int = 3
    """Updates that move everything, in a row, that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in ("persist_steps", "first_steps", "no_update_steps", "recur_steps", "close_steps"):
            require(getattr(self, name) >= 1, f"frozen_parameter.{name}", getattr(self, name), ">= 1")
        require(
            0 <= self.coarse_fraction < 1,
            "frozen_parameter.coarse_fraction",
            self.coarse_fraction,
            "in [0, 1)",
        )
        require(self.recur_times >= 2, "frozen_parameter.recur_times", self.recur_times, ">= 2")
        require(
            0 <= self.faded_lr_ratio < 1, "frozen_parameter.faded_lr_ratio", self.faded_lr_ratio, "in [0, 1)"
        )
