"""A training step on a GPU that is not there: guard, clipping, update and signals without a value or a wait."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from minigpt.distributed.world import World
from minigpt.optim.build import build_optimizers
from minigpt.training import step as step_module
from minigpt.training.run import Run
from minigpt.training.step import train_step
from minigpt.training_monitor.probes.model_probe import ModelProbe
from tests.training.tiny_run import Workshop, opened_run, step_batches
from tests.training_monitor.fake_gpu import CUDA, fake_gpus, put, with_gradients

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer:UserWarning")


def moved(run: Run, workshop: Workshop, *overrides: str) -> None:
    """The run on the fake GPU, newly built where it holds tensors."""
    run.world = World(rank=0, size=1, device=CUDA)
    put(run.model, CUDA)
    run.optimizers = build_optimizers(run.model, workshop.config(*overrides).optimizer)
    run.probe = ModelProbe(run.model, run.optimizers)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_step_needs_no_value_and_no_wait(
    optimizer: str, scaled: bool, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "batch_facts", lambda pairs: None)  # the host's own
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with opened_run(workshop.config(), tmp_path) as run, fake_gpus() as transfers:
        moved(run, workshop, f"optimizer.name={optimizer}")
        run.scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        monkeypatch.setattr(Tensor, "backward", lambda loss: with_gradients(run.model))
        run.skip_above = 3.0
        tokens = torch.zeros(4, 16, dtype=torch.long)
        for _ in range(2):
            result = train_step(run, step_batches(*[(tokens, tokens)] * 2, targets=128), 0.01)
            assert (result.numbers.device, result.numbers.dtype) == (CUDA, torch.float32)
    # Inputs and targets of two micro-batches and two steps, which the loader pins.
    assert transfers.waits == []
    assert transfers.uploads == ["step.py:train_step"] * 8
