"""Thresholds, first steps and persistence of every rule, and the policy, as plain dataclasses."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

_STRICT: dict[str, Any] = {"extra": "forbid", "use_attribute_docstrings": True, "allow_inf_nan": False}


def _require(ok: bool, name: str, found: object, wanted: str) -> None:
    """ValueError saying what, found and wanted."""
    if not ok:
        raise ValueError(f"{name} = {found} must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class VanishingConfig:
    """When small gradients are called gradient_vanishing."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

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

    def __post_init__(self) -> None:
        rule = "gradient_vanishing"
        _require(self.first_step >= 0, f"{rule}.first_step", self.first_step, ">= 0")
        _require(self.floor >= 0, f"{rule}.floor", self.floor, ">= 0")
        _require(0 < self.drop_ratio < 1, f"{rule}.drop_ratio", self.drop_ratio, "between 0 and 1")
        _require(
            0 < self.decline_ratio < 1,
            f"{rule}.decline_ratio",
            self.decline_ratio,
            "between 0 and 1",
        )
        _require(self.decline_steps >= 6, f"{rule}.decline_steps", self.decline_steps, ">= 6")
        _require(self.persist_steps >= 2, f"{rule}.persist_steps", self.persist_steps, ">= 2")
        _require(
            0 < self.max_loss_improvement < 1,
            f"{rule}.max_loss_improvement",
            self.max_loss_improvement,
            "between 0 and 1",
        )
        _require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


@dataclass(frozen=True, kw_only=True)
class ExplodingConfig:
    """When a gradient norm far above its own recent normal is called gradient_exploding."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
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
        _require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        _require(self.min_history >= 4, f"{name}.min_history", self.min_history, ">= 4")
        _require(self.z_score > 0, f"{name}.z_score", self.z_score, "> 0")
        _require(self.min_ratio > 1, f"{name}.min_ratio", self.min_ratio, "> 1")
        _require(self.min_sigma > 0, f"{name}.min_sigma", self.min_sigma, "> 0")
        _require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        _require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")
        _require(
            0 < self.close_z_score <= self.z_score,
            f"{name}.close_z_score",
            self.close_z_score,
            f"above 0 and at most z_score = {self.z_score}",
        )
        _require(
            self.readmit_steps > self.persist_steps,
            f"{name}.readmit_steps",
            self.readmit_steps,
            f"more than persist_steps = {self.persist_steps}",
        )


@dataclass(frozen=True, kw_only=True)
class NonFiniteConfig:
    """When NaN or infinity is real, and when it is only the fp16 scaler finding its scale."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

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
            _require(getattr(self, name) >= 1, f"non_finite.{name}", getattr(self, name), ">= 1")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What is done about findings. A non-finite update is never applied, whatever stands here."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    stop_when_budget_spent: bool = True
    """Stop with a verdict when too many updates had to be skipped; false: only say so."""
    max_skips_in_a_row: int = 5
    """Skipped updates in a row that end the run."""
    max_skipped_fraction: float = 0.02
    """Share of skipped updates in the last skipped_window steps that, when exceeded, ends the run."""
    skipped_window: int = 250
    """Steps over which the share of skipped updates is taken."""

    def __post_init__(self) -> None:
        _require(self.max_skips_in_a_row >= 1, "policy.max_skips_in_a_row", self.max_skips_in_a_row, ">= 1")
        _require(
            0 <= self.max_skipped_fraction <= 1,
            "policy.max_skipped_fraction",
            self.max_skipped_fraction,
            "between 0 and 1",
        )
        _require(self.skipped_window >= 1, "policy.skipped_window", self.skipped_window, ">= 1")


@dataclass(frozen=True, kw_only=True)
class LossSpikeConfig(ExplodingConfig):
    """When a loss far above its own recent normal is called loss_spike: losses are quieter than norms."""

    rule: ClassVar[str] = "loss_spike"

    # Repeated in full: pydantic reads the docstrings of a class's own fields only.
    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    min_history: int = 16
    """Accepted values needed before anything can be called unusual."""
    z_score: float = 6.0
    """Robust standard deviations (1.4826 MAD, log space) above the short median that count as unusual."""
    min_ratio: float = 1.04
    """And this many times the short median: an effect that matters, not only an improbable one."""
    min_sigma: float = 0.02
    """Floor of the standard deviation (log space), so that a very quiet run does not cry wolf."""
    persist_steps: int = 8
    """Unusual steps in a row that make a spike sustained; fewer are transient."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""
    close_z_score: float = 3.0
    """Normal again means below this many standard deviations."""
    readmit_steps: int = 40
    """Unusual steps in a row after which the new level is the new normal."""


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """The training monitor: its language, its rules and its policy."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

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
        _require(self.language in ("en", "zh"), "monitor.language", self.language, "en or zh")
