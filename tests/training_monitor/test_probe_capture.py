"""What a model's own calls tell: the batch, and gradients that were left over."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.probes.forward_capture import batch_in
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.recording_sink import RecordingSink


class Model(nn.Module):
    """Logits from ids; with targets, a dict with the loss as Hugging Face's models give it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.head = nn.Linear(8, 16)

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.embedding(inputs))
        if labels is None:
            return logits
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def loss_of(model: nn.Module, window: Tensor) -> Any:
    logits = model(window[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())


def windows(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 16, (2, 9), generator=generator) for _ in range(count)]


def watched(
    train: Callable[[nn.Module, torch.optim.Optimizer, LoopMonitor, list[Tensor]], None],
    model: nn.Module | None = None,
) -> list[StepSignals]:
    model = Model() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizer, sinks=[sink], config=MonitorConfig(enabled=False))
    train(model, optimizer, monitor, windows(4))
    monitor.close()
    return sink.signals


def plainly(
    model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
) -> None:
    for window in batches:
        loss = loss_of(model, window)
        loss.backward()
        monitor.step(loss)
        optimizer.step()
        optimizer.zero_grad()


def test_batch_is_captured_over_all_micro_batches_and_without_evaluations() -> None:
    def train(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        for first, second in (batches[:2], batches[:2], batches[2:]):
            for window in (first, second):
                loss = model(window[:, :-1], labels=window[:, 1:])["loss"]
                loss.backward()
            with torch.no_grad():
                model(batches[3][:, :-1])
            monitor.step(loss)
            optimizer.step()
            optimizer.zero_grad()

    facts = [signals.batch for signals in watched(train)]
    assert all(batch is not None and batch.tokens == 32 and batch.label_match == 1.0 for batch in facts)
    hashes = [batch.hash for batch in facts if batch is not None]
    assert hashes[0] == hashes[1] != hashes[2]


def test_leftover_is_zero_wherever_the_loop_zeroes() -> None:
    def early(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        for window in batches:
            optimizer.zero_grad()
            loss = loss_of(model, window)
            loss.backward()
            monitor.step(loss)
            optimizer.step()

    def late(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        for window in batches:
            loss = loss_of(model, window)
            # a penalty's gradients come before the model's own
            loss = loss + 0.01 * sum(parameter.square().sum() for parameter in model.parameters())
            optimizer.zero_grad()
            loss.backward()
            monitor.step(loss)
            optimizer.step()

    def to_zero(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        for window in batches:
            loss = loss_of(model, window)
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            monitor.step(loss)
            optimizer.step()

    for train in (early, late, to_zero):
        assert [signals.leftover_grad_norm for signals in watched(train)] == [0.0] * 4


def test_leftover_is_the_norm_of_what_was_not_zeroed() -> None:
    norms: list[float] = []

    def train(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        for step, window in enumerate(batches):
            loss = loss_of(model, window)
            if step != 2:
                optimizer.zero_grad()
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))
            monitor.step(loss)
            optimizer.step()

    left = [signals.leftover_grad_norm for signals in watched(train)]
    assert left == [0.0, 0.0, pytest.approx(norms[1]), 0.0]


def test_copied_model_is_not_watched() -> None:
    def train(
        model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, batches: list[Tensor]
    ) -> None:
        copied = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for window in batches:
            loss = loss_of(model, window)
            loss.backward()
            for other in (copied, loaded):
                loss_of(other, window).backward()
            monitor.step(loss)
            optimizer.zero_grad()

    signals = watched(train)
    assert [s.batch.tokens if s.batch else None for s in signals] == [16] * 4
    assert [s.leftover_grad_norm for s in signals] == [0.0] * 4


def test_closed_monitor_has_left_the_model() -> None:
    model = Model()
    LoopMonitor(model, sinks=[], config=MonitorConfig(enabled=False)).close()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("way", ["outside", "in place"])
def test_compiled_model_is_watched_without_what_its_calls_would_tell(way: str) -> None:
    model = Model()
    target: nn.Module = model
    if way == "outside":
        target = torch.compile(model, backend="eager", fullgraph=True)  # type: ignore[assignment]
    else:
        model.compile(backend="eager", fullgraph=True)

    signals = watched(lambda _, *parts: plainly(target, *parts), model)
    assert all(s.batch is None and s.leftover_grad_norm is None for s in signals)
    assert all(s.grad_norm > 0 and list(s.group_norms) == ["embedding", "head"] for s in signals)


def test_wrapper_of_a_compiled_model_tells_its_batches() -> None:
    compiled: nn.Module = torch.compile(Model(), backend="eager")  # type: ignore[assignment]

    signals = watched(plainly, compiled)
    assert [s.batch.tokens if s.batch else None for s in signals] == [16] * 4
    assert signals[0].parameters is not None
    assert signals[0].parameters.facts.names[0] == "embedding.weight"


IDS, TARGETS = torch.ones(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)
MASK = torch.ones(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "named", "with_targets"),
    [
        ((IDS, TARGETS), {}, True),
        ((IDS,), {"labels": TARGETS}, True),
        ((), {"attention_mask": MASK, "input_ids": IDS, "labels": TARGETS}, True),
        ((), {"input_ids": IDS, "attention_mask": MASK}, False),
        (({"input_ids": IDS, "labels": TARGETS},), {}, True),
        (((IDS, TARGETS),), {}, True),
        ((torch.ones(2, 3), IDS), {"targets": TARGETS}, True),
        ((IDS, torch.ones(2, 1, 3, 3, dtype=torch.long)), {}, False),
    ],
)
def test_batch_is_found_among_a_calls_arguments(
    arguments: tuple[Any, ...], named: dict[str, Any], with_targets: bool
) -> None:
    found = batch_in(arguments, named)
    assert found is not None
    assert found[0] is IDS
    assert (found[1] is TARGETS) == with_targets


def test_no_batch_is_found_among_floats_and_pictures() -> None:
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert batch_in((torch.ones(2, 3), pictures, None, "text"), {"labels": TARGETS}) is None
