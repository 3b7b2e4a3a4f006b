"""Batches for training, prefetched in the background, and for validation, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from torch import Tensor

from minigpt.data.order import permuted
from minigpt.data.prefetch import Prefetcher
from minigpt.data.windows import Windows


@dataclass(frozen=True)
class Batch:
    """Sequences for one forward on one rank: inputs and targets are int64 [batch, time]."""

    inputs_BT: Tensor
    targets_BT: Tensor
    epoch: int
    """Of the first window."""
    position: int
    """Windows consumed since the start of the run when the first one is read."""
    window_indices: tuple[int, ...]


@dataclass(frozen=True)
class StepBatches:
    """What one rank reads in one optimizer step."""

    micro_batches: list[Batch]
    position: int
    next_position: int
    epoch: int
    targets: int
    """Targets that count in this rank's micro-batches."""


class BatchLoader:
    """One step's batches after the other; which windows they hold follows from seed and position alone."""

    def __init__(
        self,
        windows: Windows,
        *,
        seed: int,
        micro_batch_size: int,
        grad_accum_steps: int,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        self._windows, self._seed = windows, seed
        self._micro_batch_size, self._grad_accum_steps = micro_batch_size, grad_accum_steps
        self._rank, self._world_size = rank, world_size
        self._pin_memory, self._prefetch = pin_memory, prefetch
        self._position = position
        self._worker: Prefetcher[StepBatches] | None = None

    @property
    def windows(self) -> Windows:
        """What the batches are made of."""
        return self._windows

    @property
    def windows_per_step(self) -> int:
        """Windows that all ranks together consume in a step."""
        return self._micro_batch_size * self._grad_accum_steps * self._world_size

    def next_step(self) -> StepBatches:
        """The next step's micro-batches of this rank, waited for; raises what went wrong in the background."""
        step = self._reader().take()
        self._position = step.next_position
        return step

    def wait(self, seconds: float) -> bool:
        """Whether `next_step` would answer at once, within so many seconds."""
        return self._reader().wait(seconds)

    @property
    def failure(self) -> BaseException | None:
        """What `next_step` would raise, as far as is known."""
        return None if self._worker is None else self._worker.failure

    def state_dict(self) -> dict[str, int]:
        """Where the next step starts: all that resuming needs."""
        return {"position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on at a saved position."""
        self.close()
        self._position = state["position"]

    def regroup(self, micro_batch_size: int, position: int) -> None:
        """From `position` on, the same windows a step in micro-batches of another size, which divides them."""
        self.close()
        sequences = self._micro_batch_size * self._grad_accum_steps
        assert sequences % micro_batch_size == 0, "other windows a step"
        self._micro_batch_size, self._grad_accum_steps = micro_batch_size, sequences // micro_batch_size
        self._position = position

    def close(self) -> None:
        """Ends the background thread; the loader can be used again and goes on where it was."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step_at(self, position: int) -> StepBatches:
        """This rank's micro-batches of the step that starts at `position`."""
        size, stride = self._micro_batch_size, self._micro_batch_size * self._world_size
        first = position + self._rank * size
        batches = [self._batch(first + micro * stride) for micro in range(self._grad_accum_steps)]
        targets = sum(self._windows.targets_in(index) for batch in batches for index in batch.window_indices)
        return StepBatches(
            batches, position, position + self.windows_per_step, position // len(self._windows), targets
        )

    def _reader(self) -> Prefetcher[StepBatches]:
        if self._worker is None:
            self._worker = Prefetcher(self._steps(self._position), self._prefetch)
        return self._worker

    def _steps(self, position: int) -> Iterator[StepBatches]:
        while True:
            yield (step := self.step_at(position))
            position = step.next_position

    def _batch(self, position: int) -> Batch:
        indices = self.windows_at(position, self._micro_batch_size)
        inputs_BT, targets_BT = self._windows.stacked(indices)
        if self._pin_memory:
            inputs_BT, targets_BT = inputs_BT.pin_memory(), targets_BT.pin_memory()
        return Batch(inputs_BT, targets_BT, position // len(self._windows), position, tuple(indices))

    def windows_at(self, position: int, count: int) -> list[int]:
        """Windows at position, position + 1, ...; a batch may begin in one epoch and end in the next."""
        per_epoch = len(self._windows)
        indices: list[int] = []
        while (missing := count - len(indices)) > 0:
            epoch, cursor = divmod(position + len(indices), per_epoch)
            places = np.arange(cursor, min(cursor + missing, per_epoch), dtype=np.int64)
            indices += permuted(places, per_epoch, self._seed, epoch).tolist()
        return indices


def validation_batches(
    windows: Windows, micro_batch_size: int, max_tokens: int | None, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """The first windows in order, at most `max_tokens` targets of them but one window at least.

    Every batch has the same shape and every rank gets as many: gaps are filled with IGNORE_INDEX targets."""
    count = len(windows) if max_tokens is None else max(1, max_tokens // windows.context_length)
    count = min(count, len(windows))
    stride = micro_batch_size * world_size
    for start in range(0, count, stride):
        first = start + rank * micro_batch_size
        indices = range(min(first, count), min(first + micro_batch_size, count))
        inputs_BT, targets_BT = windows.stacked(indices, rows=micro_batch_size)
        yield Batch(inputs_BT, targets_BT, 0, first, tuple(indices))
