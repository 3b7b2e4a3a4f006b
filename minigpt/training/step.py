"""One optimizer step, from micro-batches to updated weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from minigpt.data.loader import StepBatches
from minigpt.optim.build import apply_update, set_learning_rate
from minigpt.training.out_of_memory import UpdateOutOfMemoryError, shortage_of
from minigpt.training.run import Run
from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.probes.batch import batch_facts
from minigpt.training_monitor.probes.model_probe import Measurement


class StepResult(NamedTuple):
    """What a step leaves behind, still on the device: nothing here has waited for it.

    `numbers` is one fp32 vector: mean loss in nats, 1 if the update was called off, the scaler's scale, what
    `measurement` reads (first the gradient norm before clipping), last the norm of gradients that were left over.
    """

    numbers: Tensor
    measurement: Measurement
    targets: int
    batch: BatchFacts | None
    """This rank's share of the batch."""
    lr: float
    """What the optimizers were told, for the parameters with the plain learning rate."""


def train_step(
    run: Run, batches: StepBatches, lr: float, inspect: Callable[[], None] | None = None
) -> StepResult:
    """Train on `batches` at learning rate `lr`; `inspect` looks at the full gradients before they are clipped.

    Losses and gradients are sums over targets divided by the step's targets on all ranks, so any split of a batch into
    micro-batches and ranks, even with uneven targets, gives the gradient of the one large batch.
    """
    set_learning_rate(run.optimizers, lr)
    device, world = run.world.device, run.world
    leftover = _leftover_grad_norm(run)
    targets = int(world.sum(torch.tensor(batches.targets)))
    cross_entropy = torch.zeros((), device=device)
    for index, batch in enumerate(batches.micro_batches):
        inputs_BT = batch.inputs_BT.to(device, non_blocking=True)
        targets_BT = batch.targets_BT.to(device, non_blocking=True)
        with _gradient_sync(run, last=index == len(batches.micro_batches) - 1):
            with run.precision.autocast():
                sums = run.forward(inputs_BT, targets_BT)
            # DDP averages over the ranks: x world.size turns its mean back into the sum.
            run.scaler.scale(sums.total * (world.size / targets)).backward()
        cross_entropy += sums.cross_entropy
    for optimizer in run.optimizers:
        run.scaler.unscale_(optimizer)
    measurement = run.probe.measure(count_zeros=run.scaler.is_enabled())
    if inspect is not None:
        inspect()
    loss = world.sum(cross_entropy) / targets
    scale = run.scaler.scale(torch.ones((), device=device))
    bad = ~(loss.isfinite() & measurement.total.isfinite())
    if run.skip_above is not None:
        bad |= measurement.total > run.skip_above
    call_off = bad.float()
    _clip(run, measurement.total)
    try:
        apply_update(run.optimizers, call_off)
    except (RuntimeError, MemoryError) as error:
        if shortage_of(error) is None:
            raise
        raise UpdateOutOfMemoryError from error
    run.scaler.update()
    run.model.zero_grad(set_to_none=True)
    numbers = torch.cat([torch.stack([loss, call_off, scale]), measurement.vector, leftover.reshape(1)])
    # The host's turn last: on a GPU all of the step is under way by now.
    group = run.optimizers[0].param_groups[0]
    return StepResult(
        numbers,
        measurement,
        targets,
        batch_facts([(batch.inputs_BT, batch.targets_BT) for batch in batches.micro_batches]),
        group["lr"] / group["lr_ratio"],
    )


def _leftover_grad_norm(run: Run) -> Tensor:
    """Norm of the gradients that are there before the first backward: 0, unless something forgot to zero them."""
    gradients = run.probe.gradients()
    return run.probe.norm_of(gradients) if gradients else torch.zeros((), device=run.world.device)


def _clip(run: Run, grad_norm: Tensor) -> None:
    """Scale all gradients so that their global norm is at most max_grad_norm, as clip_grad_norm_ does."""
    if run.config.max_grad_norm is not None:
        coefficient = (run.config.max_grad_norm / (grad_norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([p.grad for p in run.model.parameters() if p.grad is not None], coefficient)


def _gradient_sync(run: Run, last: bool) -> AbstractContextManager[None]:
    """Ranks exchange gradients once a step, with the last micro-batch."""
    if isinstance(run.forward, DistributedDataParallel) and not last:
        return run.forward.no_sync()
    return nullcontext()
