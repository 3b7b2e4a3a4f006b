"""What a GPU would have to be waited for is read in one place, one step late; all else stays on the device."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from tests.training_monitor.device_side import DeviceSide
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.small_models import gpt, tokens

READ_LATE = "deferred_read.py:drain"


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x + 1),
        lambda x: torch.allclose(x, x + 1),
        lambda x: x.cpu(),
        lambda x: torch.where(x > 0),
    ],
)
def test_device_side_sees_the_host_wait(read: Callable[[Tensor], object]) -> None:
    x = torch.arange(4.0)
    with DeviceSide() as side:
        read(x)  # on the host yet
        side.put([x])
        moved = (x * 2 + torch.ones(4)).clamp(max=1.0)
        assert side.syncs == []
        read(moved)
    assert side.syncs == ["test_host_syncs.py:<lambda>"]


Optimize = Callable[[Any], torch.optim.Optimizer]


@pytest.mark.parametrize(
    "optimize",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    ],
)
def test_watched_loop_waits_for_nothing_but_the_late_read(optimize: Optimize) -> None:
    """Ordinary steps, looks on the beat and on suspicion, leftover gradients, and a loss that is NaN for a while."""
    model, sink = gpt(), RecordingSink()
    optimizer = optimize(model.parameters())
    # Calling the model again at the first NaN does wait: once, and the step is lost anyway.
    config = MonitorConfig(look_every_steps=7, look_every_steps_on_suspicion=2, rerun_micro_batches=0)
    monitor = LoopMonitor(model, optimizer, config=config, sinks=[sink], max_grad_norm=1.0, late=True)
    with DeviceSide(model) as side:
        for step in range(1, 31):
            for _ in range(2):
                loss = F.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten())
                loss = loss * (math.nan if 12 <= step < 14 else 1.0)
                loss.backward()  # type: ignore[no-untyped-call]
            monitor.step(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if not 12 <= step < 14:
                optimizer.step()
            if step != 20:
                optimizer.zero_grad()
        assert set(side.syncs) == {READ_LATE}
        # Once a step, but for the first; and each look once.
        looks = [signals.step for signals in sink.signals if signals.look is not None]
        assert len(side.syncs) == 29 + len(looks)
    monitor.close()
    assert {7, 14, 21, 28} < set(looks)
    assert any(event.name == "nan_loss" for event in sink.events)
    assert [signals.step for signals in sink.signals] == list(range(1, 31))


def test_scaled_loop_waits_only_where_torchs_own_scaler_does() -> None:
    """GradScaler.step asks the host whether it overflowed, watched or not; with a fused optimizer it does not."""
    found = {}
    for fused in (False, True):
        model = gpt()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        monitor = LoopMonitor(model, optimizer, scaler=scaler, sinks=[], late=True)
        with DeviceSide(model) as side:
            for _ in range(20):
                with torch.autocast("cpu", dtype=torch.float16):
                    loss = F.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten())
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.unscale_(optimizer)
                monitor.step(loss)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        monitor.close()
        found[fused] = set(side.syncs) - {READ_LATE}
    # By frame: this very test, since torch's own lines are passed over.
    assert found[True] == set()
    assert len(found[False]) == 1
