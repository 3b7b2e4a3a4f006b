"""Outcomes as an experiment would find them, with the figures that a test asks for."""

from dataclasses import replace
from typing import Any

from minigpt.lab.experiments.outcome import Outcome

TINY = (
    "model.hidden_size=32",
    "model.context_length=32",
    "training.tokens_per_step=512",
    "training.max_steps=25",
    "schedule.warmup_steps=5",
)
"""Still 16 sequences a step."""

SOUND = Outcome(
    arm="",
    seed=0,
    steps=20,
    stopped=False,
    losses=(2.0,) * 20,
    grad_norms=(1.0,) * 20,
    skipped_steps=(),
    scaler_steps=(),
    first_group_norms={},
    last_group_norms={},
    validation_loss=2.0,
    health="healthy",
    findings=(),
    seconds_per_step=0.1,
)


def seeds_of(arm: str, *losses: float | None, **fields: Any) -> list[Outcome]:
    """A run a loss, which it has at every step."""
    return [
        replace(SOUND, **{"arm": arm, "seed": seed, "losses": (loss,) * 20, **fields})
        for seed, loss in enumerate(losses)
    ]
