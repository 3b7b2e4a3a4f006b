"""What a closer look at the forward pass found: taken on a slower beat, and on suspicion."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Look:
    """Activations of one micro-batch; each mapping goes from layer group to number, in model order."""

    activation_rms: Mapping[str, float] = field(default_factory=dict)
    """Root mean square of each block's output (the residual stream)."""
    activation_max: Mapping[str, float] = field(default_factory=dict)
    attention_logit_max: Mapping[str, float] = field(default_factory=dict)
    """Largest attention logit (scaled q.k, over the causal part) of each attention layer."""
    dead_unit_fraction: Mapping[str, float] = field(default_factory=dict)
    """Share of feed-forward units whose activation is (nearly) zero on every token."""
    output_logit_rms: float | None = None
    output_logit_max: float | None = None
    log_partition: float | None = None
    """Mean log of the softmax denominator (what z-loss keeps small)."""
    first_non_finite: str | None = None
    """First module, in order of execution, whose output had NaN or infinity from finite inputs."""
