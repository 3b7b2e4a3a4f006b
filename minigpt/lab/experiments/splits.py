"""One batch's gradient in micro-batches of every size: as it should be added up, and as it often is."""

from collections.abc import Sequence
from typing import Any

import torch

from minigpt.lab.gradients import (
    Gradient,
    Pair,
    exact_gradient,
    first_sequences,
    gradient,
    in_micro_batches,
    norm,
    relative_difference,
    targets_in,
)
from minigpt.model.gpt import GPT
from minigpt.model.loss import IGNORE_INDEX
from minigpt.training.run import Run
from minigpt.training_monitor.probes.own_hook import without_own_hooks


def sizes_of(sequences: int) -> list[int]:
    """The batch, halved as often as it can be, and single sequences: 16, 8, 4, 2, 1; 12, 6, 3, 1."""
    sizes = [sequences]
    while sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes if sizes[-1] == 1 else [*sizes, 1]


def look_at_splits(run: Run) -> dict[str, Any]:
    """How far the first step's gradient, in fp32, is from the undivided one, by micro-batch size (as text)."""
    sequences = run.config.tokens_per_step // run.model.config.context_length
    batch = first_sequences(run, sequences)
    with without_own_hooks(run.model):
        full = _compared(run.model, batch)
        uneven = _compared(run.model, with_uneven_targets(batch, run.config.seed))
    return {"full": full, "uneven": uneven}


def _compared(model: GPT, batch: Pair) -> dict[str, dict[str, float]]:
    """`sums`: every micro-batch's summed loss over the targets of all, as MiniGPT does; `means`: the mean of their mean
    losses; each as its relative difference from the undivided batch. `error`: that of `sums` from fp64.
    `not_divided`: how many times as long the gradient is where mean losses are added up and not divided."""
    whole, exact = gradient(model, [batch]), exact_gradient(model, batch)
    found = {}
    for size in sizes_of(len(batch[0])):
        parts = in_micro_batches(batch, size)
        sums, means = gradient(model, parts), mean_of_means(model, parts)
        found[str(size)] = {
            "sums": relative_difference(sums, whole),
            "error": relative_difference(sums, exact),
            "means": relative_difference(means, whole),
            "not_divided": len(parts) * norm(means) / norm(whole),
        }
    return found


def mean_of_means(model: GPT, parts: Sequence[Pair]) -> Gradient:
    """Each micro-batch's mean loss divided by their number: each weighs the same, however few targets it has."""
    return gradient(model, parts, weights=[1 / (len(parts) * targets_in(part)) for part in parts])


def with_uneven_targets(batch: Pair, seed: int) -> Pair:
    """The same sequences, each with only its first n targets: n at random from 1 to all, as after padding."""
    inputs_BT, targets_BT = batch
    generator = torch.Generator().manual_seed(seed)
    counts_B = torch.randint(1, targets_BT.shape[1] + 1, (len(targets_BT),), generator=generator)
    places_T = torch.arange(targets_BT.shape[1])
    padding_BT = (places_T >= counts_B.unsqueeze(1)).to(targets_BT.device)
    return inputs_BT, targets_BT.masked_fill(padding_BT, IGNORE_INDEX)
