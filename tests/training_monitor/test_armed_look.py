"""Looks at the forwards of a loop that somebody else runs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minigpt.training_monitor.armed_look import arm
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.forward_look import ForwardWatch, look
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.small_models import gpt, number_of_hooks, tokens


def test_armed_look_sees_the_users_own_forward_and_changes_nothing() -> None:
    model = gpt()
    expected, plain = look(model, lambda: model(tokens())), model(tokens())
    armed = arm(model)
    assert armed is not None
    assert armed.take() is None
    logits = model(tokens())
    measured = armed.take()
    assert measured is not None
    assert measured.read(measured.vector.tolist()) == expected
    assert torch.equal(logits, plain)
    assert logits.requires_grad
    assert number_of_hooks(model) == 0


def test_armed_look_holds_no_activation_while_the_backward_runs() -> None:
    model = gpt()
    armed = arm(model)
    model(tokens())
    assert armed is not None
    assert not [value for value in vars(armed).values() if isinstance(value, ForwardWatch)]
    measured = armed.take()
    assert measured is not None
    assert measured.vector.numel() < 20


def test_armed_look_cleans_up_when_the_forward_fails() -> None:
    model = gpt()
    arm(model)
    with pytest.raises(ValueError, match="do not fit"):
        model(torch.zeros(1, 99, dtype=torch.long))
    assert number_of_hooks(model) == 0
    assert torch.overrides._get_current_function_mode_stack() == []  # type: ignore[no-untyped-call]


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, monitor: LoopMonitor, steps: int, parts: int = 1
) -> None:
    for _ in range(steps):
        for _ in range(parts):
            loss = F.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten())
            loss.backward()  # type: ignore[no-untyped-call]
        monitor.step(loss)
        optimizer.step()
        optimizer.zero_grad()
    monitor.close()


@pytest.mark.parametrize("every", [2, 0, None])
def test_any_loop_gets_a_look_on_the_slow_beat(every: int | None) -> None:
    model, recorder = gpt(), RecordingSink()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = MonitorConfig(look_every_steps=every)
    monitor = LoopMonitor(model, optimizer, config=config, sinks=[recorder])
    train(model, optimizer, monitor, 5, parts=2)
    looked_at = [signals.step for signals in recorder.signals if signals.look is not None]
    assert looked_at == ([2, 4] if every else [])
    assert number_of_hooks(model) == 0


def test_loop_is_bit_equal_when_it_is_looked_at() -> None:
    final = []
    for every in (None, 1):
        model = gpt(dropout=0.2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(0)
        monitor = LoopMonitor(model, optimizer, config=MonitorConfig(look_every_steps=every), sinks=[])
        train(model, optimizer, monitor, 4)
        final.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*final, strict=True))
