"""The optimizer's own count of its updates."""

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from minigpt.training_monitor.probes.model_probe import ModelProbe
from tests.training_monitor.test_probe_model import read


def after(updates: int, optimizer: Optimizer, model: nn.Module) -> None:
    for _ in range(updates):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_count_follows_adam_and_falls_to_zero_when_its_state_is_lost(fused: bool) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    probe = ModelProbe(model, [optimizer])
    counts = [read(probe.measure()).optimizer_steps]
    for _ in range(3):
        after(1, optimizer, model)
        counts.append(read(probe.measure()).optimizer_steps)
    assert counts == [0.0, 1.0, 2.0, 3.0]
    optimizer.state.clear()
    assert read(probe.measure()).optimizer_steps == 0.0
    after(1, optimizer, model)
    assert read(probe.measure()).optimizer_steps == 1.0


def test_count_is_zero_when_one_parameters_state_is_lost() -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    probe = ModelProbe(model, [optimizer])
    after(2, optimizer, model)
    probe.measure()
    optimizer.state[model.bias] = {}
    assert read(probe.measure()).optimizer_steps == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_count_is_none_when_the_optimizer_keeps_none(momentum: float) -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    probe = ModelProbe(model, [optimizer])
    assert read(probe.measure()).optimizer_steps is None
    after(2, optimizer, model)
    assert read(probe.measure()).optimizer_steps is None
    assert read(ModelProbe(model).measure()).optimizer_steps is None


def test_count_is_adams_beside_an_optimizer_without_one() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    muon = torch.optim.Muon(model[0].parameters(), lr=0.1)
    adam = torch.optim.AdamW(model[1].parameters())
    probe = ModelProbe(model, [muon, adam])
    after(1, muon, model)
    after(4, adam, model)
    assert read(probe.measure()).optimizer_steps == 4.0


def test_late_parameter_does_not_look_like_lost_state() -> None:
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    probe = ModelProbe(model, [optimizer])
    after(5, optimizer, model)
    probe.measure()
    model.bias.requires_grad_(True)
    counts = []
    for _ in range(2):
        after(1, optimizer, model)
        counts.append(read(probe.measure()).optimizer_steps)
    assert counts == [6.0, 7.0]


def test_restored_state_counts_on() -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    after(5, optimizer, model)
    state = optimizer.state_dict()
    optimizer = torch.optim.AdamW(model.parameters())
    probe = ModelProbe(model, [optimizer])
    optimizer.load_state_dict(state)
    assert read(probe.measure()).optimizer_steps == 5.0
