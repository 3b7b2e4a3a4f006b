"""Several ways to train a step, timed in turns in one process: what disturbs the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from minigpt.data.loader import Batch, StepBatches
from minigpt.lab.gradients import Pair, targets_in
from minigpt.training.precision import Precision
from minigpt.training.run import Run
from minigpt.training.step import train_step
from minigpt.training_monitor.probes.own_hook import without_own_hooks

ROUNDS = 15


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each way, over `rounds` of all of them one after the other; each is called once before."""
    for act in ways.values():
        act()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, act in ways.items():
            started_at = time.perf_counter()
            act()
            seconds[name].append(time.perf_counter() - started_at)
    return {name: statistics.median(values) for name, values in seconds.items()}


def whole_step(run: Run, pairs: Sequence[Pair]) -> None:
    """The loop's own step over these micro-batches, waited for, at learning rate 0: the weights stay as they are, the
    optimizer's memory does not."""
    batches = StepBatches(
        micro_batches=[Batch(inputs, targets, 0, 0, ()) for inputs, targets in pairs],
        position=0,
        next_position=0,
        epoch=0,
        targets=sum(targets_in(pair) for pair in pairs),
    )
    with without_own_hooks(run.model):
        train_step(run, batches, lr=0.0).numbers.tolist()


@contextmanager
def precision_of(
    run: Run, precision: Precision, scaler: torch.amp.GradScaler | None = None
) -> Iterator[None]:
    """The run computes in `precision` within the block; without a scaler of its own the losses are not scaled."""
    before = run.precision, run.scaler
    run.precision = precision
    run.scaler = scaler or torch.amp.GradScaler(precision.device_type, enabled=False)
    try:
        yield
    finally:
        run.precision, run.scaler = before
