"""The training monitor's configuration: the rules, each defined beside its detector, and the policy."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.gradient_vanishing import VanishingConfig
from minigpt.training_monitor.detectors.loss_spike import LossSpikeConfig
from minigpt.training_monitor.detectors.spike import ExplodingConfig
from minigpt.training_monitor.overflow import NonFiniteConfig
from minigpt.training_monitor.policy import PolicyConfig

__all__ = [
    "ExplodingConfig",
    "LossSpikeConfig",
    "MonitorConfig",
    "NonFiniteConfig",
    "PolicyConfig",
    "VanishingConfig",
]


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """The training monitor: its language, its rules and its policy."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether the run is watched at all."""
    language: Literal["en", "zh"] = "en"
    """Language of the diagnoses."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What is done about findings."""
    non_finite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    """nan_loss and non_finite_gradient."""
    gradient_vanishing: VanishingConfig = field(default_factory=VanishingConfig)
    """gradient_vanishing."""
    gradient_exploding: ExplodingConfig = field(default_factory=ExplodingConfig)
    """gradient_exploding."""
    loss_spike: LossSpikeConfig = field(default_factory=LossSpikeConfig)
    """loss_spike."""

    def __post_init__(self) -> None:
        require(self.language in ("en", "zh"), "monitor.language", self.language, "en or zh")
