"""The learning rate as a pure function of the step: nothing to save, nothing to drift."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from minigpt.optim.config import ScheduleConfig


def lr_at(step: int, schedule: ScheduleConfig, learning_rate: float, max_steps: int) -> float:
    """Learning rate of `step` (0-based): linear warm-up, then the schedule's decay.

    Step 0 trains at peak / warmup_steps, not at 0; the last step, max_steps - 1, at min_lr_ratio x peak.
    """
    update = step + 1
    if update <= schedule.warmup_steps:
        return learning_rate * update / schedule.warmup_steps
    progress = min(1.0, (update - schedule.warmup_steps) / max(1, max_steps - schedule.warmup_steps))
    shape = DECAYS[schedule.kind](progress, schedule.decay_ratio)
    return learning_rate * (schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * shape)


@dataclass(frozen=True)
class LoweredRate:
    """A learning rate below the schedule's for a while, then back up to it along a line."""

    since: int
    """The first step (0-based) trained so."""
    factor: float
    steps: int
    rewarm_steps: int
    before: float = 1.0
    """What the step before `since` is multiplied by, lowered by an earlier one."""

    def scale_at(self, step: int) -> float:
        """What the scheduled learning rate of `step` (0-based) is multiplied by."""
        rewarmed = step - (self.since + self.steps) + 1
        if step < self.since:
            return self.before
        if rewarmed > self.rewarm_steps:
            return 1.0
        if rewarmed <= 0:
            return self.factor
        return self.factor + (1 - self.factor) * rewarmed / (self.rewarm_steps + 1)


def cosine(progress: float, decay_ratio: float) -> float:
    """From 1 to 0 along half a cosine (SGDR, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def linear(progress: float, decay_ratio: float) -> float:
    """From 1 to 0 along a line (arXiv 2502.15938)."""
    return 1 - progress


def constant(progress: float, decay_ratio: float) -> float:
    """1 for ever."""
    return 1.0


def warmup_stable_decay(progress: float, decay_ratio: float) -> float:
    """1, then a line to 0 over the last `decay_ratio` of the steps after warm-up (MiniCPM, arXiv 2404.06395)."""
    return min(1.0, (1 - progress) / decay_ratio)


DECAYS: dict[str, Callable[[float, float], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": warmup_stable_decay,
}
