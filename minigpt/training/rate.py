"""The learning rate of a run: its schedule, and what the monitor's policy makes of it for a while."""

from minigpt.optim.schedule import LoweredRate, lr_at
from minigpt.training.run import Run


def learning_rate_of(run: Run) -> float:
    """Of the coming step: a function of the step and the saved state alone, so a resumed run has the same."""
    step, lowered = run.position.step, run.position.lowered
    scheduled = lr_at(step, run.schedule, run.learning_rate, run.config.max_steps)
    return scheduled if lowered is None else scheduled * lowered.scale_at(step)


def lower_learning_rate(run: Run, since: int, factor: float, steps: int, rewarm_steps: int) -> None:
    """From step `since` (0-based) on, `factor` times what it would be; one that is lowered already goes lower still.

    `since` is the coming step or the one after it.
    """
    lowered = run.position.lowered
    before, present = (1.0, 1.0) if lowered is None else map(lowered.scale_at, (since - 1, since))
    run.position.lowered = LoweredRate(since, present * factor, steps, rewarm_steps, before)
