"""What may happen to a training: the hooks that faults and healthy controls fill in."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from minigpt.lab.drill.setting import Setting

if TYPE_CHECKING:
    from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One training and what is done to it: every hook does nothing until a subclass says otherwise.

    Hooks are called in the order in which they stand here; `training` has the model, the optimizers, the step and
    a random generator of its own. A scenario keeps no state: it puts what it must remember into `training.notes`.
    """

    name: str
    setting: Setting = field(default_factory=Setting)
    seeds: tuple[int, ...] = (0, 1)
    alone: bool = False
    """Whether it needs a process of its own: the peak of memory is that of all that a process has trained."""

    def before_build(self, training: "Training") -> None:
        """The model has its first weights; there is no optimizer yet."""

    def built(self, training: "Training") -> None:
        """Model, optimizers and monitor are there; the first step comes next."""

    def before_step(self, training: "Training") -> None:
        """A step begins: the place for pauses, restarts and changes that somebody makes by hand."""

    def planned_lr(self, training: "Training", lr: float) -> float:
        """The learning rate that the user wants: the monitor is told it, if it knows the schedule."""
        return lr

    def actual_lr(self, training: "Training", lr: float) -> float:
        """The learning rate that the optimizer gets."""
        return lr

    def batch(self, training: "Training", inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens of a micro-batch."""
        return inputs_BT, targets_BT

    def loss(self, training: "Training", loss: Tensor) -> Tensor:
        """The mean loss of a micro-batch: it is reported, and differentiated."""
        return loss

    def objective(self, training: "Training", loss: Tensor) -> Tensor:
        """What is differentiated (unscaled), where that is not what is reported."""
        return loss

    def after_backward(self, training: "Training") -> None:
        """The gradients are complete and unscaled; the monitor sees them next."""

    def update(self, training: "Training") -> bool:
        """Whether the optimizer steps; the gradients are clipped."""
        return True

    def after_update(self, training: "Training") -> None:
        """The optimizer has stepped."""

    def zero_grad(self, training: "Training") -> bool:
        """Whether the gradients are forgotten."""
        return True


@dataclass(frozen=True, kw_only=True)
class Fault(Scenario):
    """A training that goes wrong at a known step for a known reason."""

    labels: tuple[str, ...] = ()
    """Findings and causes that name what is wrong: any of them is the right label."""
    symptoms: tuple[str, ...] = ()
    """Findings that are true and point at the fault without naming it: noticed, but not explained."""
    onset: int = 120
    """The first step that is not as it should be; 1: from the start."""
    lasting: bool = True
    """Whether it stays (the monitor must interrupt), or is over after a few steps (an event is enough)."""
    steps_wrong: int | None = None
    """How many steps a fault that does not last takes."""
    event_is_enough: bool = False
    """Whether a line in the record will do though it lasts: it harms no weight, or nobody could be sure of it."""
    slow: bool = False
    """Whether it builds up, so that nobody could see it at its onset."""

    healthy: Setting | None = None
    """The setting it is compared with, where the setting itself is the fault."""

    def active(self, training: "Training") -> bool:
        """Whether this step is a wrong one."""
        if training.step < self.onset:
            return False
        return self.steps_wrong is None or training.step < self.onset + self.steps_wrong


@dataclass(frozen=True, kw_only=True)
class Control(Scenario):
    """A training that looks odd and is healthy: nothing about it deserves an interruption."""
