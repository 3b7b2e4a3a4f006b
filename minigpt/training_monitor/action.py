"""What the loop should do after a step: one dataclass an action, matched by its type in the loop."""

from dataclasses import dataclass
from typing import Any

from minigpt.training_monitor.event import Event


@dataclass(frozen=True, slots=True)
class Continue:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class SkipUpdate:
    """The update was already refused on the device; for the record only."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class ScaleLearningRate:
    """Train at `factor` times the scheduled learning rate for `steps` steps, then re-warm over `rewarm_steps`."""

    step: int
    reason: str
    """One sentence in the user's language."""
    cause: str
    """Name of the finding behind it."""
    factor: float
    steps: int
    rewarm_steps: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Go back to a healthy checkpoint from before `opened_at`, and past the data that were read since."""

    step: int
    reason: str
    cause: str
    opened_at: int
    """The first bad step of the incident."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Save nothing as healthy, end the run and print the reason."""

    step: int
    reason: str
    """One sentence in the user's language."""
    cause: str
    """Name of the finding behind it."""


Action = Continue | SkipUpdate | ScaleLearningRate | RollBack | Stop

# From what may be forgotten over another to what may not.
GRAVITY = (Continue, SkipUpdate, ScaleLearningRate, RollBack, Stop)


def graver(first: Action, second: Action) -> Action:
    """What counts of two that were asked for, in this order: a stop must not be forgotten over a later, harmless step.

    What ends the training, or takes it back, comes before whatever later steps ask for: they would not have been.
    """
    if isinstance(first, RollBack | Stop):
        return first
    return max(first, second, key=lambda action: GRAVITY.index(type(action)))


NAMES: dict[type[Action], str] = {
    SkipUpdate: "skip_update",
    ScaleLearningRate: "lower_lr",
    RollBack: "rollback_wanted",
    Stop: "stop",
}


def action_event(action: Action) -> Event:
    """The event of an action that is not Continue.

    A skipped update is for the record only; a rollback is told when it has been done.
    """
    assert not isinstance(action, Continue)
    data: dict[str, Any] = {}
    if not isinstance(action, SkipUpdate):
        data["cause"] = action.cause
    if isinstance(action, ScaleLearningRate):
        data |= {"factor": action.factor, "steps": action.steps, "rewarm_steps": action.rewarm_steps}
    if isinstance(action, RollBack):
        data["opened_at"] = action.opened_at
    told = isinstance(action, Stop | ScaleLearningRate)
    return Event(action.step, "action", NAMES[type(action)], action.reason, interrupts=told, data=data)
