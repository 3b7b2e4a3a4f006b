"""Brings small device vectors to the host without a wait: one step late on CUDA, at once elsewhere."""

from typing import Generic, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


class DeferredRead(Generic[Tag]):
    """`push` this step's vector, get the previous step's values (CUDA) or this one's (CPU, MPS).

    On CUDA each vector is copied without blocking into a ring of pinned memory; its event has nearly always
    passed by the next push, so reading it does not stop the pipeline. `drain` gives what is still under way.
    """

    RING = 2

    def __init__(self) -> None:
        self._ring: list[Tensor] = []
        self._turn = 0
        self._waiting: tuple[Tag, Tensor, torch.cuda.Event] | None = None

    def push(self, tag: Tag, vector: Tensor) -> tuple[Tag, list[float]] | None:
        """Takes a 1-d fp32 vector under a tag; what is ready now (None after the first push on CUDA)."""
        ready = self.drain()
        if not vector.is_cuda:
            # Something is under way only if the model has just left the GPU: its last step is dropped.
            return tag, vector.tolist()
        host = self._slot(vector.numel())
        host.copy_(vector.detach(), non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._waiting = (tag, host, copied)
        return ready

    def drain(self) -> tuple[Tag, list[float]] | None:
        """The values still under way, if any: call it before saving, stopping and at the end."""
        if self._waiting is None:
            return None
        tag, host, copied = self._waiting
        self._waiting = None
        copied.synchronize()
        return tag, host.tolist()

    def _slot(self, size: int) -> Tensor:
        """The next pinned buffer: never the one that was just filled."""
        self._turn = (self._turn + 1) % self.RING
        if len(self._ring) < self.RING:
            self._ring = [torch.empty(size, dtype=torch.float32, pin_memory=True) for _ in range(self.RING)]
        if self._ring[self._turn].numel() < size:
            self._ring[self._turn] = torch.empty(size, dtype=torch.float32, pin_memory=True)
        return self._ring[self._turn][:size]
