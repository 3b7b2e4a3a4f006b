"""In anybody's loop the first NaN or infinity is put down to its module, by making the step's calls once more."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.small_models import number_of_hooks

BAD = 63
"""The token at which a model makes infinity."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.up = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(self.up(self.norm(x.transpose(1, 2)).transpose(1, 2)))
        return hidden


class Divide(nn.Module):
    """Finite, but where the hidden state of the bad token comes by."""

    def forward(self, x: Tensor, bad: Tensor) -> Tensor:
        return x / (~bad).float()[..., None]


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Model(nn.Module):
    """Gives its output in the form that is asked for."""

    def __init__(self, form: str = "logits") -> None:
        super().__init__()
        self.form = form
        self.embed, self.block, self.divide = nn.Embedding(64, 8), Block(), Divide()
        self.head = nn.Linear(8, 64)

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.head(self.divide(self.block(self.embed(ids)), ids == BAD))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        if self.form == "dict":
            return {"loss": loss, "logits": logits}
        if self.form == "tuple":
            return logits, loss
        return Output(loss, logits) if self.form == "object" else logits


def tokens(step: int, batch: int = 4) -> Tensor:
    return torch.randint(0, BAD, (batch, 6), generator=torch.Generator().manual_seed(step))


def spoilt(step: int, row: int = 2) -> Tensor:
    ids = tokens(step)
    ids[row, 3] = BAD
    return ids


def loss_of(output: Any, labels: Tensor) -> Any:
    if isinstance(output, dict):
        return output["loss"]
    if isinstance(output, tuple):
        return output[1]
    return (
        output.loss if isinstance(output, Output) else F.cross_entropy(output.flatten(0, 1), labels.flatten())
    )


def evidence(sink: RecordingSink, name: str = "nan_loss") -> dict[str, Any]:
    return next(event.data["evidence"] for event in sink.events if event.name == name)


def one_step(model: nn.Module, monitor: LoopMonitor, call: Callable[[], Any]) -> None:
    loss = call()
    loss.backward()
    monitor.step(loss)
    monitor.close()


def told(model: nn.Module, call: Callable[[], Any], name: str = "nan_loss") -> dict[str, Any]:
    sink = RecordingSink()
    one_step(model, LoopMonitor(model, sinks=[sink]), call)
    return evidence(sink, name)


@pytest.mark.parametrize("form", ["logits", "dict", "tuple", "object"])
@pytest.mark.parametrize("by_name", [False, True])
def test_module_and_sequence_are_named_when_one_text_spoils_the_forward(form: str, by_name: bool) -> None:
    model, ids = Model(form), spoilt(1)

    def call() -> Any:
        output = model(ids=ids, labels=ids) if by_name else model(ids, ids)
        return loss_of(output, ids)

    found = told(model, call)
    assert (found["phase"], found["module"]) == ("forward", "divide (div)")
    assert found["module_input_max"] < 10
    assert (found["row"], found["rows"]) == (2, 4)
    assert found["token_head"] == " ".join(str(token) for token in ids[2].tolist())
    assert "micro_batch" not in found


def train(monitored: bool) -> tuple[list[Tensor], RecordingSink]:
    """Eight steps of two micro-batches in buffers that are filled again; the fifth step is spoilt, and left out."""
    torch.manual_seed(0)
    model = Model("dict")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizer, sinks=[sink]) if monitored else None
    buffer, kept = torch.zeros(4, 6, dtype=torch.int64), []
    for step in range(1, 9):
        total = torch.zeros(())
        for micro in range(2):
            buffer.copy_(spoilt(step, row=1) if (step, micro) == (5, 0) else tokens(10 * step + micro))
            loss = model(buffer, labels=buffer)["loss"] / 2
            loss.backward()
            total += loss.detach()
        if monitor:
            monitor.step(total)
        if torch.isfinite(total):
            optimizer.step()
        optimizer.zero_grad()
        kept.append(torch.rand(2))
    if monitor:
        monitor.close()
        assert number_of_hooks(model) == 0
    return [*kept, *(value.clone() for value in model.state_dict().values())], sink


def test_step_done_again_changes_no_bit_of_the_training_with_dropout_and_batch_norm() -> None:
    alone, _ = train(False)
    watched, sink = train(True)
    assert all(torch.equal(one, other) for one, other in zip(alone, watched, strict=True))
    found = evidence(sink)
    assert (found["module"], found["micro_batch"], found["micro_batches"]) == ("divide (div)", 1, 2)
    assert (found["row"], found["token_head"]) == (1, " ".join(map(str, spoilt(5, row=1)[1].tolist())))


def test_another_micro_batch_is_told_when_the_bad_one_was_not_kept() -> None:
    model, sink = Model("tuple"), RecordingSink()
    config = replace(MonitorConfig(), rerun_micro_batches=2)
    monitor = LoopMonitor(model, config=config, sinks=[sink])
    total = torch.zeros(())
    for ids in (spoilt(1), tokens(2), tokens(3)):
        loss = model(ids, ids)[1]
        loss.backward()
        total += loss.detach()
    monitor.step(total)
    monitor.close()
    assert evidence(sink)["rerun"] == "incomplete"
    assert any("another of its micro-batches" in event.text for event in sink.events)


def test_nothing_is_kept_when_it_is_switched_off_or_too_large() -> None:
    for settings in ({"rerun_micro_batches": 0}, {"rerun_micro_batches": None}, {"rerun_most_mib": 0}):
        model, sink, ids = Model("tuple"), RecordingSink(), spoilt(1)
        monitor = LoopMonitor(model, config=replace(MonitorConfig(), **settings), sinks=[sink])
        one_step(model, monitor, lambda model=model, ids=ids: model(ids, ids)[1])  # type: ignore[misc]
        assert not {"module", "rerun"} & evidence(sink).keys()


class Root(nn.Module):
    """Infinite slope where the dropout left nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.dropout(self.first(x)).abs().sqrt())
        return output


def test_backward_is_blamed_with_a_stand_in_for_the_loss_when_the_model_returns_none() -> None:
    torch.manual_seed(0)
    model = Root()
    found = told(model, lambda: model(torch.ones(3, 4)).square().mean(), "non_finite_gradient")
    assert (found["phase"], found["module"]) == ("backward", "Root (sqrt)")


def test_loss_is_blamed_when_the_model_is_finite() -> None:
    model, sink = Model(), RecordingSink()

    def call() -> Any:
        return F.cross_entropy(model(tokens(1)).flatten(0, 1), torch.full((24,), -100))

    one_step(model, LoopMonitor(model, sinks=[sink]), call)
    assert evidence(sink)["rerun"] == "after_model"
    (event,) = [event for event in sink.events if event.name == "nan_loss"]
    assert event.data["causes"][0] == "loss_not_finite"
    assert "behind the model" in event.text


def test_loss_s_own_backward_is_blamed_when_the_model_is_finite_both_ways() -> None:
    model = nn.Linear(2, 2)
    found = told(model, lambda: (model(torch.ones(1, 2)) * 0).abs().sqrt().sum(), "non_finite_gradient")
    assert found["rerun"] == "backward_finite"


def test_input_is_blamed_when_the_batch_holds_nan() -> None:
    model, sink = nn.Linear(2, 2), RecordingSink()
    given = torch.tensor([[1.0, torch.nan]])
    one_step(model, LoopMonitor(model, sinks=[sink]), lambda: model(given).sum())
    (event,) = [event for event in sink.events if event.name == "nan_loss"]
    assert event.data["evidence"]["phase"] == "input"
    assert event.data["causes"][0] == "input_not_finite"


def test_call_is_left_out_when_its_buffer_was_filled_with_other_numbers_since() -> None:
    model, buffer, sink = nn.Linear(2, 2), torch.full((1, 2), torch.nan), RecordingSink()
    monitor = LoopMonitor(model, sinks=[sink])
    loss = model(buffer).sum()
    loss.backward()
    buffer.fill_(1.0)
    monitor.step(loss)
    assert evidence(sink)["rerun"] == "incomplete"


def test_model_that_cannot_be_called_again_costs_one_quiet_note() -> None:
    class Once(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Once.calls += 1
            if Once.calls > 1:
                raise ValueError("not again")
            return super().forward(x) * torch.nan

    model, sink = Once(2, 2), RecordingSink()
    one_step(model, LoopMonitor(model, sinks=[sink]), lambda: model(torch.ones(1, 2)).sum())
    notes = [event for event in sink.events if event.kind == "note"]
    assert ["not again" in note.text and not note.interrupts for note in notes] == [True]
    assert any(event.name == "nan_loss" for event in sink.events)


def test_weights_spoilt_since_are_no_cause_where_a_step_is_judged_late() -> None:
    model, sink, ids = Model("tuple"), RecordingSink(), spoilt(1)
    monitor = LoopMonitor(model, sinks=[sink])
    loss = model(ids, ids)[1]
    loss.backward()
    measurement = monitor._probe.measure(loss)
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    monitor._judge(((1, None, 1.0, measurement), measurement.vector.tolist()))
    assert evidence(sink)["rerun"] == "poisoned"


def test_weights_are_blamed_when_they_were_spoilt_before_the_step() -> None:
    model, ids = Model("tuple"), tokens(1)
    with torch.no_grad():
        model.block.up.weight[0, 0] = torch.nan
    found = told(model, lambda: model(ids, ids)[1])
    assert (found["phase"], found["module"], found["parameter"]) == ("weights", "block.up", "block.up.weight")


def test_overflow_is_found_when_it_needs_the_autocast_of_the_call() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.fill_(300.0)

    def call() -> Any:
        with torch.autocast("cpu", dtype=torch.float16):
            return model(torch.full((1, 4), 200.0)).float().sum()

    found = told(model, call)
    assert (found["module"], found["dtype"]) == ("1", "float16")


def test_compiled_model_is_done_again_by_its_eager_original() -> None:
    model, ids = Model("tuple"), spoilt(1)
    compiled: Any = torch.compile(model, backend="eager")
    found = told(compiled, lambda: compiled(ids, ids)[1])
    assert (found["module"], found["row"]) == ("divide (div)", 2)


def test_whatever_a_module_remembers_is_as_before_when_it_was_called_again() -> None:
    class Remembers(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.calls, self.sums = 0, [0.0]
            self.running: Any = torch.zeros(2)
            self.generator = torch.Generator().manual_seed(1)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.sums.append(float(x.sum()))
            self.running += 1
            self.last = super().forward(x) * torch.nan
            return self.last + torch.rand(2, generator=self.generator)

    model = Remembers()
    loss = model(torch.ones(1, 2)).sum()
    monitor = LoopMonitor(model, sinks=[])
    loss = model(torch.ones(1, 2)).sum()
    loss.backward()
    last, state = model.last, model.generator.get_state()
    monitor.step(loss)
    assert (model.calls, model.sums, model.running.tolist()) == (2, [0.0, 2.0, 2.0], [2.0, 2.0])
    assert model.last is last
    assert torch.equal(model.generator.get_state(), state)


def test_argument_s_graph_is_not_kept_alive_and_parts_stand_in_for_an_uncalled_model() -> None:
    whole: Any = nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)})
    with torch.no_grad():
        whole["second"].weight.fill_(torch.inf)
        whole["first"].weight.fill_(1.0)
    sink = RecordingSink()
    monitor = LoopMonitor(whole, sinks=[sink])
    monitor.watch_parts(whole.children())
    loss = whole["second"](whole["first"](torch.ones(1, 2))).sum()
    kept = monitor._probe._kept._calls
    assert [call.module for call in kept] == [whole["first"], whole["second"]]
    assert all(not each.requires_grad for each, _ in kept[1].versions)
    loss.backward()
    monitor.step(loss)
    monitor.close()
    assert evidence(sink)["parameter"] == "second.weight"
    assert number_of_hooks(whole) == 0


def test_arguments_of_any_kind_do_no_harm() -> None:
    class Strange:
        def values(self) -> Any:
            raise RuntimeError("not for you")

    class Takes(nn.Linear):
        def forward(self, x: Tensor, *others: Any) -> Tensor:
            return super().forward(x) * torch.nan

    model, sparse = Takes(2, 2), torch.eye(2).to_sparse()
    found = told(model, lambda: model(torch.ones(1, 2), Strange(), sparse).sum())
    assert "module" not in found
    assert told(model, lambda: model(torch.ones(1, 2), None, "x", {1: [2]}).sum())["phase"] == "forward"


def test_wrapped_model_is_done_again_without_a_word_to_the_other_ranks(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model, ids = nn.parallel.DistributedDataParallel(Model("tuple")), spoilt(1)
        found = told(model, lambda: model(ids, ids)[1])
        assert (found["module"], found["row"]) == ("divide (div)", 2)
    finally:
        dist.destroy_process_group()


def test_forward_that_talks_to_the_other_ranks_is_not_made_again(tmp_path: Path) -> None:
    class Talks(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x) * torch.nan
            dist.all_reduce(y.detach())
            Talks.calls += 1
            return y

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model, sink = Talks(2, 2), RecordingSink()
        one_step(model, LoopMonitor(model, sinks=[sink]), lambda: model(torch.ones(1, 2)).sum())
    finally:
        dist.destroy_process_group()
    assert Talks.calls == 1
    assert any("talks to the other ranks" in event.text for event in sink.events if event.kind == "note")
