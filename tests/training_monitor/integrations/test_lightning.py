"""MonitorCallback in the real Trainers of both of Lightning's packages."""

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning")
with warnings.catch_warnings():
    # lightning_utilities still asks pkg_resources, and torch.jit warns of its own end
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl

from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.integrations import lightning
from minigpt.training_monitor.integrations.lightning import MonitorCallback
from tests.training_monitor.recording_sink import RecordingSink

VOCAB, LENGTH = 32, 8
pytestmark = [
    # of the Trainer's surroundings, not of what is tested
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]


@pytest.fixture(params=[None, True], ids=["read-at-once", "read-late"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU, and again one step late, as on CUDA."""
    monkeypatch.setattr(lightning, "LoopMonitor", partial(LoopMonitor, late=request.param))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 16)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(16, VOCAB)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.embedding(inputs)
        for block in self.blocks:
            hidden = hidden + self.dropout(block(hidden).tanh())
        logits: Tensor = self.head(hidden)
        return logits


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()
        self.before_clip: list[dict[str, float]] = []
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs).flatten(0, 1), targets.flatten())
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, **clip: Any) -> None:
        squares: dict[str, Tensor] = {}
        for name, parameter in self.net.named_parameters():
            if parameter.grad is not None:
                group = name.rpartition(".")[0]
                own = parameter.grad.double().square().sum()
                squares[group] = squares.get(group, torch.zeros((), dtype=torch.float64)) + own
        self.before_clip.append({f"net.{group}": own.sqrt().item() for group, own in squares.items()})
        super().configure_gradient_clipping(optimizer, **clip)


def loader() -> Any:
    rows = [(torch.arange(LENGTH + 1) * (1 + n % 3) + 5 * n) % VOCAB for n in range(40)]
    pairs = [(row[:-1], row[1:]) for row in rows]
    return torch.utils.data.DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]


def trainer(folder: Path, *callbacks: Any, package: Any = pl, **settings: Any) -> Any:
    settings = {
        "max_steps": 12,
        "accumulate_grad_batches": 3,
        "gradient_clip_val": 0.5,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    } | settings
    return package.Trainer(default_root_dir=str(folder), callbacks=list(callbacks), **settings)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_is_watched_in_silence_and_trains_bit_for_bit_alike(tmp_path: Path, precision: str) -> None:
    modules = Module(), Module()
    kept = RecordingSink()
    for module, callbacks in zip(modules, ([], [MonitorCallback(sinks=[kept])]), strict=True):
        torch.manual_seed(1)
        trainer(tmp_path, *callbacks, precision=precision).fit(module, loader())
    states = (module.state_dict().values() for module in modules)
    assert all(torch.equal(mine, its) for mine, its in zip(*states, strict=True))
    assert [event.text for event in kept.events if event.interrupts] == []
    # 10 batches an epoch: the step at its end has one of them, the others have three
    expected, place = [], 0
    for step in range(12):
        batches = 1 if step % 4 == 3 else 3
        own = modules[1].losses[place : place + batches]
        expected.append(sum(own) / batches)
        place += batches
    assert [signals.loss for signals in kept.signals] == pytest.approx(expected, rel=1e-5)
    for signals, norms in zip(kept.signals, modules[1].before_clip, strict=True):
        assert signals.group_norms == pytest.approx(norms, rel=1e-5)
        assert signals.lr == signals.scheduled_lr
        assert signals.clipped == (signals.grad_norm > 0.5)
    assert [signals.tokens for signals in kept.signals[:4]] == [96, 96, 96, 32]
    assert {signals.batch.label_match for signals in kept.signals if signals.batch} == {1.0}


class Validated(Module):
    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.net(batch[0])


def test_lightning_evaluations_are_no_training_steps(tmp_path: Path) -> None:
    kept = RecordingSink()
    training = trainer(tmp_path, MonitorCallback(sinks=[kept]), max_steps=6, val_check_interval=3)
    training.fit(Validated(), loader(), loader())
    assert [signals.tokens for signals in kept.signals] == [96, 96, 96, 32, 96, 96]


@pytest.mark.usefixtures("reads")
def test_lightning_goes_on_in_the_same_records_when_resumed(tmp_path: Path) -> None:
    first = trainer(tmp_path, MonitorCallback(), max_steps=4)
    first.fit(Module(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    again = trainer(tmp_path, MonitorCallback(), max_steps=8)
    again.fit(Module(), loader(), ckpt_path=str(tmp_path / "last.ckpt"))
    lines = (tmp_path / "monitor/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert records[7]["tokens_seen"] == 2 * 320
    assert (tmp_path / "monitor/monitor_logs").is_dir()


class Poisoned(pl.Callback):
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 5:
            pl_module.net.blocks[1].weight.data[0, 0] = float("nan")


@pytest.mark.usefixtures("reads")
def test_lightning_is_stopped_with_a_verdict_when_numbers_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = trainer(tmp_path, MonitorCallback(), Poisoned(), max_steps=100)
    training.fit(Module(), loader())
    assert training.global_step < 20
    assert "⚠️ Anomaly detected at step 6: nan_loss" in capsys.readouterr().out
    assert '"name": "stop"' in (tmp_path / "monitor/events.jsonl").read_text(encoding="utf-8")


def test_lightning_loss_and_gradients_are_unscaled_when_a_scaler_is_in_use(tmp_path: Path) -> None:
    from lightning.pytorch.plugins import MixedPrecision

    kept = RecordingSink()
    module = Module()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    settings = {"max_steps": 3, "accumulate_grad_batches": 1, "plugins": [plugin]}
    trainer(tmp_path, MonitorCallback(sinks=[kept]), **settings).fit(module, loader())
    assert [signals.loss for signals in kept.signals] == pytest.approx(module.losses, rel=1e-5)
    for signals, norms in zip(kept.signals, module.before_clip, strict=True):
        assert signals.group_norms == pytest.approx(norms, rel=1e-5)
    assert [signals.scaler_scale for signals in kept.signals] == [1024.0] * 3


class Manual(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        mine, other = self.optimizers()
        mine.zero_grad()
        other.zero_grad()
        self.manual_backward(loss)
        mine.step()
        other.step()
        return loss

    def configure_optimizers(self) -> Any:
        parameters = list(self.net.parameters())
        return [torch.optim.SGD(parameters[:1], lr=1e-2), torch.optim.AdamW(parameters[1:], lr=1e-3)]


def test_lightning_has_one_step_a_batch_when_optimization_is_manual(tmp_path: Path) -> None:
    kept = RecordingSink()
    module = Manual()
    training = trainer(
        tmp_path,
        MonitorCallback(sinks=[kept]),
        max_steps=8,
        accumulate_grad_batches=1,
        gradient_clip_val=None,
    )
    training.fit(module, loader())
    assert [signals.step for signals in kept.signals] == [1, 2, 3, 4]
    assert [signals.loss for signals in kept.signals] == pytest.approx(module.losses)


@pytest.fixture
def other_package() -> Iterator[Any]:
    """pytorch_lightning, and the callback as it is where only that is imported."""
    own = "minigpt.training_monitor.integrations.lightning"
    hidden = {
        name: module for name, module in sys.modules.items() if name == "lightning.pytorch" or name == own
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pytorch_lightning")
    for name in hidden:
        del sys.modules[name]
    yield package, importlib.import_module(own).MonitorCallback
    sys.modules.update(hidden)


def test_lightning_callback_is_one_of_pytorch_lightning_when_that_is_in_use(
    tmp_path: Path, other_package: Any
) -> None:
    package, callback = other_package
    assert issubclass(callback, package.Callback)

    class Own(package.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            logits: Tensor = self.net(batch[0])
            return nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten())

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    kept = RecordingSink()
    trainer(tmp_path, callback(sinks=[kept]), package=package, max_steps=3).fit(Own(), loader())
    assert [signals.step for signals in kept.signals] == [1, 2, 3]


@pytest.mark.parametrize("calls_itself", [False, True])
def test_lightning_module_that_made_the_first_nan_is_named(tmp_path: Path, calls_itself: bool) -> None:
    bad = VOCAB - 1

    class Spoilt(Module):
        def forward(self, inputs: Tensor) -> Any:
            return self.net(inputs)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Any:
            inputs, targets = batch[0].clamp(max=bad - 1), batch[1]
            if index == 4:
                inputs[2, 0] = bad
            logits = self.forward(inputs) if not calls_itself else self.__call__(inputs)
            return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    kept = RecordingSink()
    module = Spoilt()
    module.net.embedding.register_forward_hook(
        lambda part, given, made: made / (given[0] != bad).float()[..., None]
    )
    trainer(tmp_path, MonitorCallback(sinks=[kept]), max_steps=2).fit(module, loader())
    found = next(event for event in kept.events if event.name == "nan_loss").data["evidence"]
    assert (found["phase"], found["module"]) == ("forward", "net.embedding")
    assert (found["row"], found["rows"], found["micro_batch"], found["micro_batches"]) == (2, 4, 2, 3)
