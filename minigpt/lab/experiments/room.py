"""Memory and time of a batch and of one four times as large: at once, accumulated, and in bf16."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from minigpt.lab.experiments.cost import fp32_on
from minigpt.lab.experiments.held_bytes import (
    forget_peak,
    largest_within,
    peak_of,
    saved_bytes,
    state_bytes,
)
from minigpt.lab.experiments.turns import in_turns, precision_of, whole_step
from minigpt.lab.gradients import Pair, first_sequences, in_micro_batches
from minigpt.training.precision import Precision
from minigpt.training.run import Run

TIMES = 4
"""The larger batch, in smaller ones: 64 and 16 in the users' account."""
ROUNDS = 7
FEW = 4
"""Sequences of a small micro-batch."""

Way = tuple[Precision, int, int]
"""Number format, sequences an update, sequences at once."""


def look_at_room(run: Run) -> dict[str, Any]:
    """For each way to train on the same sequences: seconds, bytes held (state included), a GPU's peak; and how many
    sequences bf16 takes at once in the memory that the run's batch takes in fp32."""
    device = run.world.device
    batch = run.config.tokens_per_step // run.model.config.context_length
    ways = ways_of(batch, device)
    sequences = first_sequences(run, TIMES * batch)
    acts = {name: partial(_train_on, run, way, sequences) for name, way in ways.items()}
    found: dict[str, Any] = {"device": device.type, "batch": batch, "ways": {}}
    found["tokens"] = TIMES * run.config.tokens_per_step
    seconds = in_turns(acts, ROUNDS)
    for name, (precision, update, at_once) in ways.items():
        forget_peak(device)
        acts[name]()
        found["ways"][name] = {
            "precision": precision.name,
            "update": update,
            "at_once": at_once,
            "seconds": seconds[name],
            "held": held_bytes(run, sequences, precision, at_once),
            "peak": peak_of(device),
        }
    limit = held_bytes(run, sequences, fp32_on(device), batch)
    found["fits_bf16"] = largest_within(
        limit, partial(held_bytes, run, sequences, _bf16_on(device)), TIMES * batch
    )
    return found


def ways_of(batch: int, device: torch.device) -> dict[str, Way]:
    """By name; the first is what the others are compared with."""
    fp32, bf16 = fp32_on(device), _bf16_on(device)
    large = TIMES * batch
    ways: Sequence[Way] = (
        (fp32, batch, batch),
        (fp32, large, batch),
        (fp32, large, large),
        (fp32, large, min(FEW, batch)),
        (fp32, large, 1),
        (bf16, large, batch),
        (bf16, large, large),
    )
    return {way_text(way): way for way in ways}


def way_text(way: Way) -> str:
    """fp32, 64 = 4 x 16."""
    precision, update, at_once = way
    name = "fp32" if precision.name == "off" else precision.name
    return f"{name}, {update}" + ("" if update == at_once else f" = {update // at_once} x {at_once}")


def held_bytes(run: Run, sequences: Pair, precision: Precision, at_once: int) -> int:
    """Weights, gradients, moments, and what the forward pass of a micro-batch keeps for its backward pass."""
    pair = in_micro_batches(sequences, at_once)[0]
    return saved_bytes(run.model, pair, precision) + state_bytes(run)


def saving(look: Mapping[str, Any], precision: str, kind: str = "seconds") -> float:
    """How much less (0.58: 58 % less) the accumulated larger batch takes in `precision` than the batch in fp32.

    kind: seconds, for the same tokens | held | peak.
    """
    batch = look["batch"]
    base, other = f"fp32, {batch}", f"{precision}, {TIMES * batch} = {TIMES} x {batch}"
    return float(1 - look["ways"][other][kind] / look["ways"][base][kind])


def _train_on(run: Run, way: Way, sequences: Pair) -> None:
    """All the sequences, in as many updates as the way makes of them."""
    precision, update, at_once = way
    with precision_of(run, precision):
        for part in in_micro_batches(sequences, update):
            whole_step(run, in_micro_batches(part, at_once))


def _bf16_on(device: torch.device) -> Precision:
    return Precision("bf16", torch.bfloat16, device.type)
