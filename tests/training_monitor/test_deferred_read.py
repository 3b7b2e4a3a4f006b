"""Values come to the host at once or one step late, each whole and under its own tag."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.forward_look import MeasuredLook
from minigpt.training_monitor.probes.looks import LookReads
from tests.training_monitor.fake_gpu import SECOND, fake_gpus


def test_read_is_at_once_on_the_cpu() -> None:
    reads: DeferredRead[str] = DeferredRead()
    assert reads.push("first", torch.tensor([1.0, 2.0])) == ("first", [1.0, 2.0])
    assert reads.drain() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_read_is_one_step_late_and_without_a_sync_on_cuda() -> None:
    reads: DeferredRead[int] = DeferredRead()
    vector = torch.arange(3.0, device="cuda")
    reads.push(0, vector)
    reads.drain()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = [reads.push(step, vector + step) for step in range(1, 6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got[0] is None
    assert [entry[0] for entry in got[1:] if entry is not None] == [1, 2, 3, 4]
    assert reads.drain() == (5, [5.0, 6.0, 7.0])


def test_read_is_one_step_late_when_asked_and_sees_no_later_change() -> None:
    reads: DeferredRead[int] = DeferredRead(late=True)
    vector = torch.tensor([1.0])
    assert (reads.push(1, vector), reads.under_way) == (None, 1)
    vector.fill_(2.0)  # a buffer that is used again, as CUDA graphs do
    assert reads.push(2, vector) == (1, [1.0])
    assert reads.drain() == (2, [2.0])
    assert (reads.drain(), reads.under_way) == (None, None)


class SlowCopies(TorchFunctionMode):
    """CPU tensors that say they are on a GPU; copies without a wait land when their event is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[tuple[Tensor, Tensor]] = []
        self.streams: list[object] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func == Tensor.copy_ and kwargs:
            self.started.append((args[0], args[1].clone()))
            return args[0]
        return func(*args, **kwargs or {})

    def event(self) -> "Passing":
        return Passing(self)


class Passing:
    """A CUDA event."""

    def __init__(self, copies: SlowCopies) -> None:
        self._copies, self._until = copies, 0

    def record(self, stream: object) -> None:
        self._copies.streams.append(stream)
        self._until = len(self._copies.started)

    def synchronize(self) -> None:
        for host, values in self._copies.started[: self._until]:
            host.data.copy_(values)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> SlowCopies:
    slow, empty = SlowCopies(), torch.empty
    monkeypatch.setattr("torch.cuda.Event", slow.event)
    monkeypatch.setattr("torch.cuda.current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr("torch.empty", lambda size, *, pin_memory=False, **named: empty(size, **named))
    return slow


def test_pinned_buffers_are_read_whole_and_never_used_while_a_copy_is_under_way(copies: SlowCopies) -> None:
    reads: DeferredRead[int] = DeferredRead()
    vectors = [torch.arange(size) + 100.0 * size for size in (3, 3, 5, 2, 8, 8, 1)]
    with copies:
        got = [reads.push(step, vector) for step, vector in enumerate(vectors)]
        got.append(reads.drain())
    assert got[0] is None
    assert got[1:] == [(step, vector.tolist()) for step, vector in enumerate(vectors)]
    buffers = [host.data_ptr() for host, _ in copies.started]
    assert all(one != other for one, other in pairwise(buffers))


def test_copy_is_waited_for_on_the_vectors_own_device(copies: SlowCopies) -> None:
    """Its stream, not that of the current device: a model may be on the second GPU."""
    with fake_gpus():
        DeferredRead[int]().push(1, torch.zeros(3, device=SECOND))
    assert copies.streams == ["stream of cuda:1"]


def test_last_step_on_the_gpu_is_read_when_the_model_has_left_it(copies: SlowCopies) -> None:
    reads: DeferredRead[int] = DeferredRead()
    with copies:
        assert reads.push(1, torch.ones(2)) is None
    assert reads.push(2, torch.zeros(2)) == (1, [1.0, 1.0])
    assert reads.push(3, torch.zeros(2)) == (2, [0.0, 0.0])
    assert reads.drain() == (3, [0.0, 0.0])
    assert reads.push(4, torch.zeros(2)) == (4, [0.0, 0.0])


def test_look_of_a_later_step_is_not_waited_for() -> None:
    looks = LookReads(late=True)
    looks.push(5, MeasuredLook((("output_logit_rms", "output"),), torch.tensor([1.0])))
    assert looks.look_of(4) is None
    assert looks._reads._reads.under_way is not None  # read with its own step's numbers
    found = looks.look_of(5)
    assert found is not None
    assert found.output_logit_rms == 1.0
    assert looks.look_of(5) is None
