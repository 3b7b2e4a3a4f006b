"""Durations for people, and when a run will be done."""

import statistics
from collections.abc import Sequence

_LONG_SECONDS = 2 * 86400
"""From here on a CPU run is better done with a smaller preset or on a GPU."""


def duration_text(seconds: float) -> str:
    """A duration with as much precision as anybody needs: "45 s", "12 min", "3 h 20 min", "11 days"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 24 * 60:
        # Five minutes' steps: nobody's machine runs more evenly than that.
        hours, rest = divmod(round(minutes / 5) * 5, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    hours_exact = seconds / 3600
    if hours_exact < 48:
        return f"{hours_exact:.0f} h"
    days = hours_exact / 24
    if days >= 730:
        return f"{days / 365.25:.0f} years"
    return f"{days:.1f} days" if days < 9.95 else f"{days:.0f} days"


def steady_step_seconds(step_seconds: Sequence[float]) -> float | None:
    """The usual length of a step, from measured ones in order; None before the second step.

    The first step is left out (it allocates and compiles); the median does not mind an evaluation or a
    swap-in.
    """
    return statistics.median(step_seconds[1:]) if len(step_seconds) > 1 else None


def eta_text(
    seconds_per_step: float, steps_left: int, *, device_type: str, smaller_preset: str | None = None
) -> str:
    """The time left in words: "about 11 days on this CPU; --config small fits it".

    `smaller_preset` names one that suits a CPU, or is None if this run is it.
    """
    seconds = seconds_per_step * steps_left
    where = {"cuda": "this GPU", "mps": "this Mac's GPU"}.get(device_type, "this CPU")
    text = f"about {duration_text(seconds)} on {where}"
    if device_type == "cpu" and smaller_preset is not None and seconds > _LONG_SECONDS:
        return f"{text}; --config {smaller_preset} fits it"
    return text
