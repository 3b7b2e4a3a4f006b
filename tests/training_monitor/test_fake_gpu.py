"""On a GPU that is not there: nothing needs a value, waits for a copy, or mixes up devices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minigpt.training_monitor import deferred_read, facade, untouched
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.forward_look import measure_look
from minigpt.training_monitor.probes.batch import BatchProbe, DeviceBatch
from minigpt.training_monitor.probes.model_probe import ModelProbe
from minigpt.training_monitor.probes.upload import uploaded
from tests.training_monitor.fake_gpu import CUDA, SECOND, fake_gpus, put, with_gradients
from tests.training_monitor.small_models import gpt

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer:UserWarning")


def mlp() -> nn.Module:
    return put(nn.Sequential(nn.Embedding(64, 96), nn.Linear(96, 512), nn.Linear(512, 64)), CUDA)


def half_in_fp16() -> nn.Module:
    model = mlp()
    put(model.get_submodule("1"), CUDA, torch.float16)
    return model


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: bool(x[0]),
    ],
)
def test_what_needs_a_value_raises_on_a_fake_gpu(read: Callable[[Tensor], object]) -> None:
    with fake_gpus(), pytest.raises(Exception, match=r"aten|not linked"):
        read(torch.zeros(4, device=CUDA))


def test_copies_that_wait_are_seen_on_a_fake_gpu() -> None:
    with fake_gpus() as transfers:
        torch.tensor(1.0, device=CUDA)
        torch.ones(3).to(CUDA)
        torch.ones(3, device=CUDA).cpu()
        assert len(transfers.waits) == 3
        torch.ones(3).to(CUDA, non_blocking=True)
        assert len(transfers.uploads) == 1
        uploaded([1.0, 2.0], CUDA)
        torch.full((), 1.0, device=CUDA)
        torch.zeros(3, device=CUDA) * 2.0 + 1
    assert (len(transfers.waits), len(transfers.uploads)) == (3, 1)


@pytest.mark.parametrize("model", [mlp, half_in_fp16])
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"capturable": True}])
def test_measuring_waits_for_no_copy(model: Callable[[], nn.Module], options: dict[str, Any]) -> None:
    with fake_gpus() as transfers:
        watched = model()
        # Fused kernels want one dtype a tensor list, which torch groups by itself.
        optimizer = torch.optim.AdamW(watched.parameters(), **options)
        probe = ModelProbe(watched, [optimizer])
        for _ in range(2):
            with_gradients(watched)
            vector = probe.measure(count_zeros=True).vector
            assert (vector.device, vector.dtype) == (CUDA, torch.float32)
            assert probe.norm_of(probe.gradients()).device == CUDA
            optimizer.step()
            optimizer.zero_grad()
    assert transfers.waits == transfers.uploads == []


def test_model_over_several_devices_is_measured_on_the_first_gpu() -> None:
    with fake_gpus() as transfers:
        model = nn.Sequential(nn.Linear(8, 8), put(nn.Linear(8, 8), SECOND), put(nn.Linear(8, 8), CUDA))
        probe = ModelProbe(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
        for _ in range(2):
            with_gradients(model)
            assert probe.measure(count_zeros=True).vector.device == SECOND
            assert probe.norm_of(probe.gradients()).device == SECOND
    assert transfers.waits == []


@pytest.mark.parametrize("labels", ["none", "alike", "of another shape"])
def test_batch_facts_wait_for_no_copy(labels: str) -> None:
    with fake_gpus() as transfers:
        probe = BatchProbe()
        for _ in range(2):
            ids = torch.zeros(4, 33, dtype=torch.long, device=CUDA)
            targets = {"none": None, "alike": ids[:, 1:], "of another shape": ids[:, 0]}[labels]
            probe.add(ids[:, :-1], targets)
        batch = probe.take()
        assert isinstance(batch, DeviceBatch)
        assert batch.vector.device == CUDA
    assert transfers.waits == transfers.uploads == []


@pytest.mark.parametrize("over", [(CUDA, CUDA), (CUDA, SECOND)])
def test_look_waits_for_no_copy(over: tuple[torch.device, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untouched, "_random_states", lambda model: {})
    with fake_gpus() as transfers:
        model = gpt()
        put(model, CUDA)
        put(model.blocks[1], over[1])

        def forward() -> Tensor:
            x = model.embedding(torch.zeros(2, 16, dtype=torch.long, device=CUDA))
            for block, device in zip(model.blocks, over, strict=True):
                tables = (table[:16].to(device) for table in (model.rotary_cos, model.rotary_sin))
                x = block(x.to(device), *tables)
            return nn.functional.linear(x.to(CUDA), model.embedding.weight)

        measured = measure_look(model, forward)
        assert measured.vector.device == CUDA
    assert {"activation_rms", "attention_logit_max", "dead_unit_fraction", "log_partition"} <= {
        field for field, _ in measured.tags
    }
    assert transfers.waits == transfers.uploads == []


class Sent:
    """Takes what would be read later."""

    under_way = None

    def __init__(self, late: bool | None = None) -> None:
        self.vectors: list[Tensor] = []

    def push(self, tag: object, vector: Tensor) -> None:
        self.vectors.append(vector)

    def drain(self) -> None: ...


@pytest.mark.parametrize("scaled", [False, True])
def test_watched_step_waits_for_no_copy(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (facade, deferred_read):
        monkeypatch.setattr(module, "DeferredRead", Sent)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with fake_gpus() as transfers:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        config = MonitorConfig(look_every_steps=None)
        monitor = LoopMonitor(model, optimizer, scaler=scaler, sinks=[], config=config)
        for _ in range(3):
            ids = torch.zeros(4, 33, dtype=torch.long, device=CUDA)
            loss = model(ids[:, :-1]).mean()
            scaler.scale(loss)
            with_gradients(model)
            scaler.unscale_(optimizer)
            monitor.step(loss, inputs=ids[:, :-1], targets=ids[:, 1:])
            scaler.step(optimizer)
            scaler.update()
        monitor.close()
        sent: Any = monitor._reads
        assert [vector.device for vector in sent.vectors] == [CUDA] * 3
        assert len(set(map(len, sent.vectors))) > 1  # the first step has no update to measure
    assert transfers.waits == transfers.uploads == []
