"""Outcomes that nobody trained."""

import math
from collections.abc import Sequence
from typing import Any

from minigpt.lab.experiments.outcome import Outcome


def outcome(losses: Sequence[float | None], **changes: Any) -> Outcome:
    """Of a run with these training losses, healthy unless `changes` say otherwise; NaN becomes None."""
    known = [loss if loss is not None and math.isfinite(loss) else None for loss in losses]
    values: dict[str, Any] = {
        "arm": "an arm",
        "seed": 0,
        "steps": len(known),
        "stopped": False,
        "losses": tuple(known),
        "grad_norms": (1.0,) * len(known),
        "skipped_steps": (),
        "scaler_steps": (),
        "first_group_norms": {"blocks.0": 1.0},
        "last_group_norms": {"blocks.0": 1.0},
        "validation_loss": known[-1],
        "health": "healthy",
        "findings": (),
        "seconds_per_step": 0.1,
        "unigram_loss": 9.0,
        "where": "a machine, 2001-01-01",
    }
    return Outcome(**{**values, **changes})
