"""What the monitor is told once about a run, to be aware of its warm-up and to give exact advice."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts about the run; None where the caller does not know."""

    warmup_steps: int = 0
    max_grad_norm: float | None = None
    learning_rate: float | None = None
    """Peak learning rate."""
    precision: str | None = None
    """fp16 | bf16 | off: advice about fp16 is for fp16 runs only."""
    in_force: frozenset[str] = frozenset()
    """Settings that need no advising, as they would be typed: "model.qk_norm=true"."""
