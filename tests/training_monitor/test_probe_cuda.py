"""On CUDA nothing that is measured waits for the device."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.probes.batch import BatchProbe, DeviceBatch
from minigpt.training_monitor.probes.model_probe import ModelProbe
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.test_probe_model import read

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def no_sync() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def gpt() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(64, 96), nn.Linear(96, 512), nn.Linear(512, 64)).cuda()


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("fused", [False, True])
def test_measuring_never_waits(fused: bool) -> None:
    model = gpt()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    probe = ModelProbe(model, [optimizer])
    ids = torch.randint(0, 64, (4, 32), device="cuda")
    vectors = []
    for step in range(4):
        model(ids).square().mean().backward()
        if step == 1:
            torch.cuda.set_sync_debug_mode("error")
        vectors.append(probe.measure(count_zeros=True))
        probe.norm_of(probe.gradients())
        torch.cuda.set_sync_debug_mode("default")
        optimizer.step()
        optimizer.zero_grad()
    readings = [read(measurement) for measurement in vectors]
    assert [reading.optimizer_steps for reading in readings] == [0.0, 1.0, 2.0, 3.0]
    assert all(ratio > 0 for ratio in readings[-1].update_ratios.values())


def test_device_and_host_measure_the_same() -> None:
    model = gpt()
    ids = torch.randint(0, 64, (4, 32), device="cuda")
    model(ids).square().mean().backward()
    on_device = read(ModelProbe(model).measure())
    on_host = read(ModelProbe(model.cpu()).measure())
    assert on_device.parameters.grad_norms == pytest.approx(on_host.parameters.grad_norms, rel=1e-5)
    assert on_device.parameters.weight_norms == pytest.approx(on_host.parameters.weight_norms, rel=1e-5)
    assert on_device.parameters.zero_fractions == pytest.approx(on_host.parameters.zero_fractions)


@pytest.mark.usefixtures("no_sync")
def test_batch_facts_never_wait_and_equal_the_hosts() -> None:
    probe = BatchProbe()
    window = torch.randint(0, 64, (4, 33))
    pairs = [(window[:, :-1], window[:, 1:])]
    probe.add(*(tensor.cuda() for tensor in pairs[0]))
    torch.cuda.set_sync_debug_mode("error")
    batch = probe.take()
    torch.cuda.set_sync_debug_mode("default")
    assert isinstance(batch, DeviceBatch)
    probe.add(*pairs[0])
    host = probe.take()
    assert host is not None
    assert not isinstance(host, DeviceBatch)
    found = batch.read(batch.vector.tolist())
    assert (found.distinct_tokens, found.top_fraction) == (host.distinct_tokens, host.top_fraction)
    assert (found.label_match, found.label_copy) == (host.label_match, host.label_copy)


@pytest.mark.usefixtures("no_sync")
@pytest.mark.parametrize("scaled", [False, True])
def test_a_watched_step_never_waits(scaled: bool) -> None:
    model = gpt()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=scaled)
    sink = RecordingSink()
    monitor = LoopMonitor(model, optimizer, scaler=scaler, sinks=[sink], config=MonitorConfig(enabled=False))
    for step in range(6):
        if step == 2:
            torch.cuda.set_sync_debug_mode("error")
        window = torch.arange(4 * 33, device="cuda").view(4, 33) % 64
        loss: Any = nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        monitor.step(loss)
        torch.cuda.set_sync_debug_mode("default")
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    monitor.close()
    assert [signals.step for signals in sink.signals] == list(range(1, 7))
    assert [signals.optimizer_steps for signals in sink.signals] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert all(signals.batch is not None and signals.batch.tokens == 128 for signals in sink.signals)
    assert all(signals.leftover_grad_norm == 0.0 for signals in sink.signals)
