"""Outcomes as an experiment would find them, with the figures that a test asks for."""

from dataclasses import replace
from typing import Any

from minigpt.lab.experiments.outcome import Outcome
from tests.lab.experiments.made_up import outcome

TINY = (
    "model.hidden_size=32",
    "model.context_length=32",
    "training.tokens_per_step=512",
    "training.max_steps=25",
    "schedule.warmup_steps=5",
)
"""Still 16 sequences a step."""

SOUND = outcome([2.0] * 20, arm="", first_group_norms={}, last_group_norms={})


def seeds_of(arm: str, *losses: float | None, **fields: Any) -> list[Outcome]:
    """A run a loss, which it has at every step."""
    return [
        replace(SOUND, **{"arm": arm, "seed": seed, "losses": (loss,) * 20, **fields})
        for seed, loss in enumerate(losses)
    ]
