"""What is odd about a layer, in plain words."""

import math
import statistics
from collections.abc import Sequence

from minigpt.lab.layers.measure import TensorStats

OFF_BY = 5.0
"""Times the median over the layers, or its part: all layers of a kind begin with one RMS (branch outputs too, whatever
the depth), and training under one learning rate and one weight decay keeps them within a factor of two or three."""
GRADIENT_OFF_BY = 30.0
"""The same for gradient norms, which differ more: in sound runs the first layer's are ten times those of the middle."""
LEAST_LAYERS = 3
"""For a median that one layer does not decide."""
_MOST_NAMED = 8


def odd_layers(stats: Sequence[TensorStats]) -> list[str]:
    """A line for each oddity, the gravest kind first."""
    lines = _non_finite(stats) + _all_zero(stats)
    for kind in dict.fromkeys(one.place.kind for one in stats):
        of_kind = [one for one in stats if one.place.kind == kind and one.place.layer is not None]
        lines += _off_median(kind, "RMS", [(one, one.rms) for one in of_kind], OFF_BY)
        lines += _off_median(
            kind,
            "gradient norm",
            [(one, one.grad_norm) for one in of_kind if one.grad_norm is not None],
            GRADIENT_OFF_BY,
        )
    return lines


def _non_finite(stats: Sequence[TensorStats]) -> list[str]:
    weights = [one for one in stats if one.non_finite]
    lines = [
        f"{one.name}: {one.non_finite:,} of {one.count:,} weights are not finite; nothing computed with it will be"
        for one in weights[:_MOST_NAMED]
    ]
    if len(weights) > _MOST_NAMED:
        lines.append(f"... and {len(weights) - _MOST_NAMED} more tensors with weights that are not finite")
    gradients = [one.name for one in stats if one.grad_norm is not None and math.isnan(one.grad_norm)]
    if gradients:
        lines.append(f"the gradients of {_listed(gradients)} are not finite")
    return lines


def _all_zero(stats: Sequence[TensorStats]) -> list[str]:
    lines = []
    for one in stats:
        if one.zeros == 1:
            if one.place.kind.endswith("bias"):
                continue  # as every bias begins
            unborn = one.name.startswith("blocks.") and one.place.kind in ("output", "down")
            hint = " (as model.zero_init_outputs begins: not trained yet?)" if unborn else ""
            lines.append(f"{one.name}: all zeros{hint}")
    dead = [one.name for one in stats if one.grad_norm == 0 and one.zeros < 1]
    if dead:
        lines.append(f"no gradient reaches {_listed(dead)}")
    return lines


def _off_median(
    kind: str, what: str, values: Sequence[tuple[TensorStats, float]], off_by: float
) -> list[str]:
    usable = [(one, value) for one, value in values if math.isfinite(value) and value > 0]
    if len({one.place.layer for one, _ in usable}) < LEAST_LAYERS:
        return []
    middle = statistics.median(value for _, value in usable)
    lines = []
    for one, value in usable:
        if not middle / off_by <= value <= middle * off_by:
            times = value / middle if value > middle else middle / value
            way = "above" if value > middle else "below"
            lines.append(
                f"layer {one.place.layer}, {kind} ({one.name}): {what} {value:.3g} is {times:,.0f} times {way} the "
                f"median over the layers, {middle:.3g}"
            )
    return lines


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
