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
    vocab_size: int | None = None
    """The loss of a model that knows nothing is ln(vocab_size)."""
    unigram_loss: float | None = None
    """The loss of a model that knows only how frequent each token is: the entropy of their frequencies, in nats."""
    resumed: bool = False
    """Whether the first step seen is not the first of the training."""
    optimizer: str | None = None
    """adamw | muon | sgd | ...: the lower-case class name."""
    adam_eps: float | None = None
    weight_decay: float | None = None
    grad_accum_steps: int | None = None
    has_command_line: bool = True
    """Whether advice may be given as --set lines (MiniGPT); false in somebody else's loop."""
