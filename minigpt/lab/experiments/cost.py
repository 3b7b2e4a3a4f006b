"""What a step costs in the run's own precision beside fp32: seconds and bytes, in one process."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from minigpt.lab.experiments.held_bytes import forget_peak, peak_of, saved_bytes, state_bytes
from minigpt.lab.experiments.turns import in_turns, precision_of, whole_step
from minigpt.lab.gradients import first_sequences, in_micro_batches
from minigpt.training.precision import Precision
from minigpt.training.run import Run


def fp32_on(device: torch.device) -> Precision:
    """No autocast."""
    return Precision("off", torch.float32, device.type)


def look_at_cost(run: Run) -> dict[str, Any]:
    """Seconds of the loop's step and bytes held, `own` and `fp32`, over the run's first step; for `Arm.after`."""
    device = run.world.device
    sequences = run.config.tokens_per_step // run.model.config.context_length
    pairs = in_micro_batches(first_sequences(run, sequences), run.micro_batch_size)
    ways = {"fp32": (fp32_on(device), None), "own": (run.precision, run.scaler)}

    def step(precision: Precision, scaler: torch.amp.GradScaler | None) -> None:
        with precision_of(run, precision, scaler):
            whole_step(run, pairs)

    found: dict[str, Any] = {"device": device.type, "tokens": run.config.tokens_per_step}
    found["seconds"] = in_turns({name: partial(step, *way) for name, way in ways.items()})
    for name, (precision, scaler) in ways.items():
        forget_peak(device)
        step(precision, scaler)
        peak = peak_of(device)
        saved = saved_bytes(run.model, pairs[0], precision)
        found[name] = {"saved": saved, "held": saved + state_bytes(run), "peak": peak}
    return found


def speed_of(look: Mapping[str, Any]) -> float:
    """How many times the speed of fp32."""
    return float(look["seconds"]["fp32"] / look["seconds"]["own"])


def memory_of(look: Mapping[str, Any], kind: str) -> float:
    """As a share of what fp32 takes; kind: saved | held | peak."""
    return float(look["own"][kind] / look["fp32"][kind])


def has_peak(look: Mapping[str, Any]) -> bool:
    """Whether an allocator told its peak."""
    return look["own"]["peak"] is not None
