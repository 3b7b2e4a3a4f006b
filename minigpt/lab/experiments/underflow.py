"""What fp16 loses of a gradient, layer by layer, at several loss scales: elements flushed to zero, and the error."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minigpt.lab.gradients import (
    Gradient,
    first_sequences,
    gradient,
    in_micro_batches,
    norm,
    relative_difference,
)
from minigpt.training.precision import Precision
from minigpt.training.run import Run
from minigpt.training_monitor.groups import parameter_groups_by_layer
from minigpt.training_monitor.probes.own_hook import without_own_hooks

LARGER_STEP = 256
"""A micro-batch of a step of so many times the tokens has its loss divided by as much more: a scale of 1/256."""
SCALES = (1 / LARGER_STEP, 1.0, 1024 / LARGER_STEP, 1024.0, 65536.0)
"""The last is GradScaler's first; the third is what 1024 comes to in a step LARGER_STEP times as large."""
ALL = "all"


def look_at_underflow(run: Run) -> dict[str, Any]:
    """For each scale (as text) and layer group what fp16 loses of the gradient of the run's first step."""
    pairs = in_micro_batches(
        first_sequences(run, run.config.tokens_per_step // run.model.config.context_length),
        run.micro_batch_size,
    )
    fp16 = Precision("fp16", torch.float16, run.world.device.type)
    with without_own_hooks(run.model):
        whole = gradient(run.model, pairs)
        return {
            scale_text(scale): losses_of(gradient(run.model, pairs, fp16, scale=scale), whole)
            for scale in SCALES
        }


def scale_text(scale: float) -> str:
    """1/256, 1, 1024."""
    return f"{scale:g}" if scale >= 1 else f"1/{1 / scale:g}"


def losses_of(found: Gradient, whole: Gradient) -> dict[str, dict[str, float | int | None]]:
    """By layer group and for ALL: elements of `whole` that are not 0, how many of them are 0 in `found`, how many are
    not finite there, and the relative error (norm of the difference over the norm; None where not finite)."""
    groups: dict[str, list[str]] = {ALL: list(whole)}
    for name, group in parameter_groups_by_layer(whole).items():
        groups.setdefault(group, []).append(name)
    return {group: _losses(_some(found, names), _some(whole, names)) for group, names in groups.items()}


def _losses(found: Gradient, whole: Gradient) -> dict[str, float | int | None]:
    pairs = [(found[name], whole[name]) for name in whole]
    error = relative_difference(found, whole)
    return {
        "elements": _count(expected != 0 for _, expected in pairs),
        "flushed": _count((expected != 0) & (one == 0) for one, expected in pairs),
        "not_finite": _count(~one.isfinite() for one, _ in pairs),
        "norm": norm(whole),
        "error": error if math.isfinite(error) else None,
    }


def _some(all_of: Mapping[str, Tensor], names: list[str]) -> Gradient:
    return {name: all_of[name] for name in names}


def _count(masks: Any) -> int:
    return sum(int(mask.sum()) for mask in masks)


def flushed_share(look: Mapping[str, Any], scale: float, group: str = ALL) -> float:
    """Of the elements that are not 0 in fp32, the share that fp16 at this scale has as 0; NaN where there is none."""
    counts = look[scale_text(scale)][group]
    return counts["flushed"] / counts["elements"] if counts["elements"] else math.nan
