"""TrainingMonitor in somebody else's loop."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minigpt.training_monitor import TrainingMonitor
from minigpt.training_monitor.action import Continue, SkipUpdate
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.recording_sink import RecordingSink


def train(
    steps: int, monitor_in: Path | None, spoil_at: int | None = None
) -> tuple[list[torch.Tensor], list[type]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    monitor = TrainingMonitor.for_model(model, optimizer, folder=monitor_in) if monitor_in else None
    actions: list[type] = []
    for step in range(1, steps + 1):
        x = torch.randn(16, 4)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        if step == spoil_at:
            loss = loss * math.nan
        optimizer.zero_grad()
        loss.backward()
        if monitor:
            actions.append(type(monitor.step(loss)))
        if step != spoil_at:
            optimizer.step()
    if monitor:
        monitor.close()
    return [parameter.detach().clone() for parameter in model.parameters()], actions


def test_loop_monitor_watches_in_three_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, actions = train(12, tmp_path, spoil_at=10)
    assert actions == [Continue] * 9 + [SkipUpdate] + [Continue] * 2
    assert "⚠️ Anomaly detected at step 10: nan_loss" in capsys.readouterr().out
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert json.loads(lines[0])["lr"] == 1e-2
    assert list(json.loads(lines[0])["group_norms"]) == ["0", "2"]
    assert any((tmp_path / "monitor_logs").iterdir())


def test_loop_monitor_leaves_the_training_bit_identical(tmp_path: Path) -> None:
    watched, _ = train(20, tmp_path)
    alone, _ = train(20, None)
    assert all(torch.equal(one, other) for one, other in zip(watched, alone, strict=True))


def test_loop_monitor_takes_the_scalers_overflow_for_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    monitor = LoopMonitor(model, scaler=scaler)
    scaler.scale(torch.ones(1))  # makes the scale, as the first scaled loss does
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    model.weight.grad = torch.full_like(model.weight, math.inf)
    assert isinstance(monitor.step(loss), Continue)
    monitor.close()
    assert capsys.readouterr().out == ""


def train_gpt(ways: str, watched: bool) -> list[torch.Tensor]:
    """Losses and final weights of a small model with dropout."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Dropout(0.2), nn.Linear(8, 16))
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model[0].parameters(), lr=1e-2)]
    optimizers.append(torch.optim.SGD(model[2].parameters(), lr=1e-1, momentum=0.9))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3, enabled=ways == "scaler")
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizers, scaler=scaler, sinks=[sink]) if watched else None
    kept = []
    for _ in range(8):
        loss_sum = torch.zeros(())
        for _ in range(2):
            window = torch.randint(0, 16, (4, 9))
            logits = model(window[:, :-1])
            loss: Any = nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten()) / 2
            if ways == "late":
                for optimizer in optimizers:
                    optimizer.zero_grad()
            scaler.scale(loss).backward()
            loss_sum += loss.detach()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        if monitor:
            monitor.step(loss_sum)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad()
        kept.append(loss_sum)
    if monitor:
        monitor.close()
        assert len(sink.signals) == 8
        assert all(signals.optimizer_steps == step for step, signals in enumerate(sink.signals))
    return kept + [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("ways", ["plain", "scaler", "late"])
def test_watching_changes_no_bit_of_losses_and_weights(ways: str) -> None:
    alone, watched = train_gpt(ways, False), train_gpt(ways, True)
    assert all(torch.equal(one, other) for one, other in zip(alone, watched, strict=True))


def test_loop_monitor_tells_all_signals_of_a_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.3, eps=1e-7)
    sink = RecordingSink()
    monitor = TrainingMonitor.for_model(
        model,
        optimizer,
        sinks=[sink],
        max_grad_norm=1e-9,
        scheduled_lr=lambda step: 0.01 * step,
        vocab_size=16,
        precision="off",
        start_step=4,
    )
    for _ in range(2):
        window = torch.randint(0, 16, (4, 9))
        loss: Any = nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        monitor.step(loss, inputs=window[:, :-1], targets=window[:, 1:])
        optimizer.step()
        optimizer.zero_grad()
    monitor.close()
    first, last = sink.signals
    assert [first.step, last.step] == [5, 6]
    assert last.scheduled_lr == pytest.approx(0.06)
    assert (last.lr, last.tokens, last.tokens_seen, last.clipped) == (1e-2, 32, 64, True)
    assert (first.optimizer_steps, last.optimizer_steps) == (0.0, 1.0)
    assert (first.update_ratios, list(last.update_ratios)) == ({}, ["0", "1"])
    assert last.leftover_grad_norm == 0.0
    assert last.batch is not None
    assert last.batch.label_match == 1.0
    assert (last.memory_bytes or 0) > 0
    facts = monitor._facts
    assert (facts.optimizer, facts.adam_eps, facts.weight_decay) == ("adamw", 1e-7, 0.3)
    assert (facts.learning_rate, facts.resumed, facts.vocab_size) == (1e-2, True, 16)


def test_gradients_that_are_still_scaled_are_reported_unscaled() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizer, scaler=scaler, sinks=[sink])
    for unscale in (True, False):
        loss = model(torch.ones(1, 2)).sum()
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        monitor.step(loss)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    monitor.close()
    assert [signals.grad_norm for signals in sink.signals] == pytest.approx([math.sqrt(2)] * 2)
    assert sink.signals[0].group_norms == pytest.approx({"weight": math.sqrt(2)})
    assert [signals.scaler_scale for signals in sink.signals] == [2.0**10] * 2


def test_restored_loop_monitor_goes_on() -> None:
    model = nn.Linear(2, 1)
    first = LoopMonitor(model, sinks=[], tokens_per_step=7)
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    first.step(loss)
    state = json.loads(json.dumps(first.state_dict()))
    first.close()
    sink = RecordingSink()
    second = LoopMonitor(model, sinks=[sink], tokens_per_step=7, start_step=1)
    second.load_state_dict(state)
    second.step(loss)
    second.close()
    assert (sink.signals[0].step, sink.signals[0].tokens_seen) == (2, 14)


class LateRead(DeferredRead[Any]):
    """One step late, as on CUDA."""

    late: tuple[Any, list[float]] | None = None

    def push(self, tag: Any, vector: torch.Tensor) -> tuple[Any, list[float]] | None:
        ready, self.late = self.late, (tag, vector.tolist())
        return ready

    def drain(self) -> tuple[Any, list[float]] | None:
        ready, self.late = self.late, None
        return ready


@pytest.mark.parametrize("reads", [DeferredRead, LateRead], ids=["at once", "one step late"])
def test_declared_freeze_is_no_finding_when_values_are_read(reads: type[DeferredRead[Any]]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizer, sinks=[sink])
    monitor._reads = reads()
    actions = []
    for step in range(1, 40):
        if step == 20:
            monitor.declare_change("the first two layers are frozen")
            for parameter in [*model[0].parameters(), *model[1].parameters()]:
                parameter.requires_grad_(False)
        loss = model(torch.randn(16, 8)).square().mean()
        optimizer.zero_grad()
        (loss * math.nan if step == 19 else loss).backward()
        actions.append(type(monitor.step(loss * math.nan if step == 19 else loss)))
        if step != 19:
            optimizer.step()
    assert type(monitor.close()) is Continue
    assert actions.count(SkipUpdate) == 1
    told = {event.name for event in sink.events if event.kind == "anomaly"}
    assert told == {"nan_loss"}


def test_gradients_of_another_ones_backward_are_not_left_over_when_they_are_zeroed_before_the_own() -> None:
    """A discriminator's: the generator's loss goes through it first, and then its own step begins."""
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(4, 4), nn.Linear(4, 1)
    sink = RecordingSink()
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    monitor = LoopMonitor(discriminator, optimizer, sinks=[sink])
    for _ in range(6):
        discriminator(generator(torch.randn(8, 4))).mean().neg().backward()
        optimizer.zero_grad()
        loss = (
            discriminator(torch.randn(8, 4)).mean()
            - discriminator(generator(torch.randn(8, 4)).detach()).mean()
        )
        loss.backward()
        monitor.step(loss)
        optimizer.step()
    monitor.close()
    assert [signals.leftover_grad_norm for signals in sink.signals] == [0.0] * 6


def test_gradient_that_a_frozen_parameter_still_has_is_none() -> None:
    model, sink = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), RecordingSink()
    monitor = LoopMonitor(model, torch.optim.SGD(model.parameters(), lr=0.1), sinks=[sink])
    model(torch.ones(2, 4)).sum().backward()
    model[0].requires_grad_(False)
    monitor.step(torch.tensor(1.0))
    monitor.close()
    parameters = sink.signals[0].parameters
    assert parameters is not None
    assert parameters.grad_norms[:2] == [None, None]
    assert None not in parameters.grad_norms[2:]


def test_loop_is_taken_for_one_half_way_through_when_its_state_is_of_another_version() -> None:
    """Else the first loss after the resume would be judged as that of an untrained model."""
    model = nn.Linear(4, 4)
    monitor = LoopMonitor(model, sinks=[], vocab_size=4, start_step=50)
    monitor.load_state_dict({"tokens_seen": 7, "monitor": {"version": -1}})
    seen = monitor.monitor.observe(StepSignals(step=1, loss=90.0, grad_norm=1.0))
    assert seen.findings == []
    monitor.close()
