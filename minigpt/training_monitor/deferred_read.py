"""Brings small device vectors to the host without a wait: one step late on CUDA, at once elsewhere."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


@dataclass(frozen=True, slots=True)
class _UnderWay(Generic[Tag]):
    tag: Tag
    values: Tensor
    copied: torch.cuda.Event | None
    """Passes when the values have arrived; None: they are there."""


class DeferredRead(Generic[Tag]):
    """`push` this step's vector, get the previous step's values (late) or this one's (at once).

    On CUDA each vector is copied without blocking into a ring of pinned memory; its event has nearly always
    passed by the next push, so reading it does not stop the pipeline. `drain` gives what is still under way.
    """

    RING = 2

    def __init__(self, late: bool | None = None) -> None:
        """`late`: None as the vectors' device wants it, late on CUDA; True and False on every device."""
        self._late = late
        self._ring: list[Tensor] = []
        self._turn = 0
        self._waiting: _UnderWay[Tag] | None = None

    @property
    def under_way(self) -> Tag | None:
        """The tag of what `drain` would give."""
        return None if self._waiting is None else self._waiting.tag

    def push(self, tag: Tag, vector: Tensor) -> tuple[Tag, list[float]] | None:
        """Takes a 1-d fp32 vector under a tag; what is ready now (None after the first push, read late)."""
        ready = self.drain()
        # A model that has just left the GPU goes on late: both its last step there and this one are to be read.
        late = self._late if self._late is not None else vector.is_cuda or ready is not None
        if not late:
            return tag, vector.tolist()
        self._waiting = self._sent(tag, vector.detach())
        return ready

    def drain(self) -> tuple[Tag, list[float]] | None:
        """The values still under way, if any: call it before saving, stopping and at the end."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        if waiting.copied is not None:
            waiting.copied.synchronize()
        return waiting.tag, waiting.values.tolist()

    def _sent(self, tag: Tag, vector: Tensor) -> _UnderWay[Tag]:
        if not vector.is_cuda:
            return _UnderWay(tag, vector.clone(), None)
        host = self._slot(vector.numel())
        host.copy_(vector, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        # The copy runs on a stream of the vector's device, which need not be the current one.
        copied.record(torch.cuda.current_stream(vector.device))
        return _UnderWay(tag, host, copied)

    def _slot(self, size: int) -> Tensor:
        """The next pinned buffer: never the one that was just filled."""
        self._turn = (self._turn + 1) % self.RING
        if len(self._ring) < self.RING:
            self._ring = [torch.empty(size, dtype=torch.float32, pin_memory=True) for _ in range(self.RING)]
        if self._ring[self._turn].numel() < size:
            self._ring[self._turn] = torch.empty(size, dtype=torch.float32, pin_memory=True)
        return self._ring[self._turn][:size]


class StepReads(Generic[Tag]):
    """Vectors that only some steps have: `push` one at its step, ask for it `of` that step when that is read."""

    def __init__(self, late: bool | None = None) -> None:
        """`late`: see DeferredRead."""
        self._reads: DeferredRead[tuple[int, Tag]] = DeferredRead(late)
        self._ready: dict[int, tuple[Tag, list[float]]] = {}

    def push(self, step: int, tag: Tag, vector: Tensor) -> None:
        """Takes a step's 1-d fp32 vector under a tag."""
        self._keep(self._reads.push((step, tag), vector))

    def of(self, step: int) -> tuple[Tag, list[float]] | None:
        """The step's tag and values, once; None: it had none."""
        coming = self._reads.under_way
        # What a later step sent for has only just left: reading it would wait for the device.
        if coming is not None and coming[0] <= step:
            self._keep(self._reads.drain())
        return self._ready.pop(step, None)

    def _keep(self, read: tuple[tuple[int, Tag], list[float]] | None) -> None:
        if read is not None:
            (step, tag), values = read
            self._ready[step] = tag, values
