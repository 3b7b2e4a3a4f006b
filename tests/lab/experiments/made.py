"""Outcomes made up, for the tests of what is concluded from them."""

from collections.abc import Sequence

from minigpt.lab.experiments.outcome import Outcome


def outcome(
    arm: str,
    seed: int,
    losses: Sequence[float | None],
    *,
    health: str = "healthy",
    findings: tuple[str, ...] = (),
) -> Outcome:
    """A run that lost so much at each step, with a gradient norm of 1."""
    return Outcome(
        arm=arm,
        seed=seed,
        steps=len(losses),
        stopped=False,
        losses=tuple(losses),
        grad_norms=(1.0,) * len(losses),
        skipped_steps=(),
        scaler_steps=(),
        first_group_norms={},
        last_group_norms={},
        validation_loss=None,
        health=health,
        findings=findings,
        seconds_per_step=0.05,
    )
