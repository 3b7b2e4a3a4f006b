"""The gradient of given sequences, in any number format, with any loss scale, in any split: for a look at a run."""

# B batch, T time

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.gpt import GPT
from minigpt.model.loss import IGNORE_INDEX
from minigpt.training.precision import Precision
from minigpt.training.run import Run

Pair = tuple[Tensor, Tensor]
"""Inputs and targets, int64 (B, T), on the run's device."""
Gradient = dict[str, Tensor]
"""By parameter, without a scale; of the parameters' type, fp32."""


def first_sequences(run: Run, count: int) -> Pair:
    """The first `count` sequences that the run trains on, the same ones whenever it is asked.

    Without the window that ends an epoch: some of its targets may not count, and the others have all of theirs.
    """
    pairs: list[Pair] = []
    position = found = 0
    while found < count:
        step = run.loader.step_at(position)
        for batch in step.micro_batches:
            whole_B = (batch.targets_BT != IGNORE_INDEX).all(dim=1)
            pairs.append((batch.inputs_BT[whole_B], batch.targets_BT[whole_B]))
            found += int(whole_B.sum())
        position = step.next_position
    inputs_BT, targets_BT = (
        torch.cat(parts)[:count].to(run.world.device) for parts in zip(*pairs, strict=True)
    )
    return inputs_BT, targets_BT


def in_micro_batches(pair: Pair, size: int) -> list[Pair]:
    """The same sequences, `size` at a time."""
    return list(zip(torch.split(pair[0], size), torch.split(pair[1], size), strict=True))


def targets_in(pair: Pair) -> int:
    """How many targets count."""
    return int((pair[1] != IGNORE_INDEX).sum())


def gradient(
    model: GPT,
    pairs: Sequence[Pair],
    precision: Precision | None = None,
    *,
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
) -> Gradient:
    """The gradient of the mean loss, accumulated over `pairs` as the training step does; the model is left as it was.

    Each micro-batch's summed loss is multiplied by its weight (None: one over all targets, which makes the mean) and by
    `scale` before it is differentiated; the sum is divided by `scale`. No dropout. precision None: the weights' type.
    """
    return loss_and_gradient(model, pairs, precision, scale=scale, weights=weights)[1]


def loss_and_gradient(
    model: GPT,
    pairs: Sequence[Pair],
    precision: Precision | None = None,
    *,
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
) -> tuple[float, Gradient]:
    """The mean cross-entropy over all targets in nats, and `gradient`."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    targets = sum(targets_in(pair) for pair in pairs)
    if weights is None:
        weights = [1 / targets] * len(pairs)
    total: list[Tensor] = []
    cross_entropy = torch.zeros((), device=pairs[0][0].device)
    training = model.training
    model.eval()
    try:
        for pair, weight in zip(pairs, weights, strict=True):
            with nullcontext() if precision is None else precision.autocast():
                sums = model(*pair)
            # Not backward(): the run's own .grad stays as it is.
            found = torch.autograd.grad(sums.total * (weight * scale), list(named.values()))
            cross_entropy += sums.cross_entropy.detach()
            total = [one + other for one, other in zip(total, found, strict=True)] if total else list(found)
    finally:
        model.train(training)
    by_name = {name: one / scale for name, one in zip(named, total, strict=True)}
    return float(cross_entropy) / targets, by_name


def exact_gradient(model: GPT, pair: Pair) -> Gradient:
    """The gradient of the mean loss in fp64, sequence by sequence; no dropout."""
    # Apple GPUs have no fp64.
    device = torch.device("cpu") if pair[0].device.type == "mps" else pair[0].device
    copy = deepcopy(model).to(device).double().eval()
    weight = 1 / targets_in(pair)
    for inputs_BT, targets_BT in in_micro_batches((pair[0].to(device), pair[1].to(device)), 1):
        # Not the fused loss, which is fp32 inside.
        logits = copy(inputs_BT).flatten(0, 1)
        targets = targets_BT.flatten()
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
        if model.config.z_loss_weight:
            squares = logits.logsumexp(dim=-1).square().masked_fill(targets == IGNORE_INDEX, 0.0)
            loss = loss + model.config.z_loss_weight * squares.sum()
        (loss * weight).backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in copy.named_parameters()}
    return {name: one for name, one in found.items() if one is not None}


def norm(one: Mapping[str, Tensor]) -> float:
    """Of all elements together, summed in fp64."""
    return float(torch.stack([_fp64(tensor).square().sum() for tensor in one.values()]).sum().sqrt())


def relative_difference(one: Gradient, reference: Gradient) -> float:
    """Norm of the difference over the norm of `reference`; NaN where that is 0 or an element is not finite."""
    size = norm(reference)
    difference = norm({name: _fp64(one[name]) - _fp64(reference[name]) for name in reference})
    return difference / size if size else float("nan")


def _fp64(tensor: Tensor) -> Tensor:
    """On the CPU: not every device has it."""
    return tensor.detach().cpu().double()
