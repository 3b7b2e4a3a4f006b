"""What the monitor is told about one finished step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.parameter_signals import ParameterSignals


@dataclass(frozen=True, slots=True)
class StepSignals:
    """One step as numbers on the host; loss and norms may be NaN or infinite. Steps count from 1."""

    step: int
    loss: float
    """Mean cross-entropy of the step's targets, nats per token."""
    grad_norm: float
    """Global norm before clipping and after unscaling; -1: not known (a record without it)."""
    lr: float = 0.0
    group_norms: Mapping[str, float] = field(default_factory=dict)
    """Gradient norm of each layer group, in model order."""
    weight_norms: Mapping[str, float] = field(default_factory=dict)
    """Norm of each layer group's weights, as this step's forward used them."""
    update_ratios: Mapping[str, float] = field(default_factory=dict)
    """||change|| / ||weights|| of each layer group since the step before: the update that ended that step."""
    clipped: bool = False
    update_skipped: bool = False
    """Whether the guard on the device refused the update."""
    scaler_scale: float | None = None
    """GradScaler's scale; None: no scaler."""
    scaler_overflow: bool = False
    """Whether GradScaler found a non-finite gradient."""
    tokens: int = 0
    """Targets of this step."""
    tokens_seen: int = 0
    """Targets since the start of the run."""
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    mfu: float | None = None
    """Model FLOPs utilisation, 0..1."""
    memory_bytes: int | None = None
    """Peak device memory."""
    epoch: int = 0
    position: int = 0
    """Windows consumed since the start of the run."""
    scheduled_lr: float | None = None
    """What the learning rate of this step should be; None: no schedule known."""
    leftover_grad_norm: float | None = None
    """Norm of gradients that were there before this step's first backward (should be 0); None: not looked."""
    optimizer_steps: float | None = None
    """Updates that the optimizer's own state counts, before this step's; None: it keeps no count."""
    future_influence: float | None = None
    """How much the last token of a sequence moves what a causal language model says before it, as a share of what it
    moves at its own place: 0 with a causal mask. None: not looked, or the model is no such model."""
    parameters: ParameterSignals | None = None
    """Each parameter's numbers; not part of the record (metrics.jsonl has the groups)."""
    batch: BatchFacts | None = None
    look: Look | None = None
    """A closer look at the forward pass, where one was taken at this step."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are both numbers."""
        return isfinite(self.loss) and isfinite(self.grad_norm)
