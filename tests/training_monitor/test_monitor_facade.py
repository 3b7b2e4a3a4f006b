"""TrainingMonitor in somebody else's loop."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from minigpt.training_monitor import TrainingMonitor
from minigpt.training_monitor.action import Continue, SkipUpdate
from minigpt.training_monitor.facade import LoopMonitor


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
