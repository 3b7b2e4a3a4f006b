"""What is done about findings, and about which: the `monitor.policy` section."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from minigpt.training_monitor.checks import STRICT, require

ACTED_UPON = (
    "loss_spike",
    "loss_divergence",
    "gradient_exploding",
    "nan_loss",
    "non_finite_gradient",
    "update_ratio_high",
    "weight_jump",
    "label_mismatch",
    "degenerate_batch",
)
"""Trouble that came over a run that had been healthy: weights and data of before it are good."""
STRUCTURAL = frozenset(
    (
        "missing_gradient",
        "dead_layer",
        "unoptimized_parameter",
        "frozen_parameter",
        "no_update",
        "learning_rate_mismatch",
        "leftover_gradient",
        "optimizer_state_lost",
        "weight_collapse",
        "initial_loss",
        "label_leak",
        "future_leak",
        "scale_collapse",
        "gradient_scale_shift",
    )
)
"""Faults of the code or the configuration: the same steps again would show them again."""
HARMLESS = frozenset(("throughput_drop", "memory_growth", "loss_plateau", "clip_saturation"))
"""Findings that cast no doubt on the weights: a checkpoint taken meanwhile is healthy."""
OTHERS = frozenset(
    (
        "overflow_streak",
        "gradient_underflow",
        "update_ratio_low",
        "loss_collapse",
        "gradient_vanishing",
        "attention_logit_growth",
        "activation_growth",
        "output_logit_growth",
        "dead_units",
        "repeated_batch",
    )
)
"""Findings that act_on may name although it does not by itself."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What is done about findings. A non-finite update is never applied, whatever stands here."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    stop_when_budget_spent: bool = True
    """Stop with a verdict when too many updates had to be skipped; false: only say so."""
    max_skips_in_a_row: int = 5
    """Skipped updates in a row that end the run."""
    max_skipped_fraction: float = 0.02
    """Share of skipped updates in the last skipped_window steps that, when exceeded, ends the run."""
    skipped_window: int = 250
    """Steps over which the share of skipped updates is taken."""
    skip_spikes: bool = False
    """Also skip the update of a step whose gradient norm lies far above its own normal."""
    skip_spikes_z_score: float = 6.0
    """How far: robust standard deviations (log space) above the median of the last accepted norms."""
    skip_spikes_max_fraction: float = 0.01
    """At most this share of the last 500 steps is skipped so; what goes on is no spike but trouble."""
    on_sustained: Literal["continue", "lower_lr", "rollback", "stop"] = "continue"
    """When a finding of act_on is sustained: only tell | lower the learning rate for a while | go back to the last
    healthy checkpoint and past the data read since (PaLM) | stop with a verdict."""
    act_on: tuple[str, ...] = ACTED_UPON
    """The findings that on_sustained acts upon."""
    on_structural: Literal["continue", "stop"] = "continue"
    """When a finding shows a fault in code or configuration, which no action mends: only tell | stop."""
    lower_lr_factor: float = 0.5
    """lower_lr: the scheduled learning rate is multiplied by this."""
    lower_lr_steps: int = 200
    """lower_lr: for so many steps."""
    rewarm_steps: int = 100
    """lower_lr: then it rises back to the schedule along a line over so many steps."""
    max_rollbacks: int = 2
    """rollback: at most so often, the second time with a lowered learning rate; then stop with a verdict."""
    rollback_margin_steps: int = 20
    """rollback: steps' worth of data that are passed over too, beyond the step after the one that asked for it."""
    quarantine_steps: int = 10
    """rollback: a checkpoint so shortly before the first bad step is not trusted while there is an older one."""

    def __post_init__(self) -> None:
        counts = {"max_skips_in_a_row": 1, "skipped_window": 1, "lower_lr_steps": 1, "rewarm_steps": 0}
        counts |= {"max_rollbacks": 0, "rollback_margin_steps": 0, "quarantine_steps": 0}
        for name, least in counts.items():
            require(getattr(self, name) >= least, f"policy.{name}", getattr(self, name), f">= {least}")
        for name in ("max_skipped_fraction", "skip_spikes_max_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"policy.{name}", value, "between 0 and 1")
        require(
            0 < self.lower_lr_factor < 1, "policy.lower_lr_factor", self.lower_lr_factor, "between 0 and 1"
        )
        require(self.skip_spikes_z_score >= 3, "policy.skip_spikes_z_score", self.skip_spikes_z_score, ">= 3")
        wanted = ("continue", "lower_lr", "rollback", "stop")
        require(
            self.on_sustained in wanted,
            "policy.on_sustained",
            self.on_sustained,
            f"one of {', '.join(wanted)}",
        )
        require(
            self.on_structural in ("continue", "stop"),
            "policy.on_structural",
            self.on_structural,
            "continue or stop",
        )
        self._check_act_on()

    def _check_act_on(self) -> None:
        known = {*ACTED_UPON, *OTHERS, *HARMLESS}
        for name in self.act_on:
            wanted = f"names out of {', '.join(sorted(known))}"
            if name in STRUCTURAL:
                wanted = f"without {name}, a fault that no action mends (policy.on_structural stops at it)"
            require(name in known, "policy.act_on", list(self.act_on), wanted)
