"""What the README shows of the monitor in other people's training runs as it stands there."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

README = Path(__file__).parents[3] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
VOCAB, LENGTH = 32, 8


def shown(*marks: str) -> list[str]:
    """The README's Python that has all of the marks."""
    return [block for block in BLOCKS if "training_monitor" in block and all(mark in block for mark in marks)]


def pairs(count: int = 16) -> list[tuple[Tensor, Tensor]]:
    rows = [(torch.arange(LENGTH + 1) * (1 + n % 3) + 5 * n) % VOCAB for n in range(count)]
    return [(row[:-1], row[1:]) for row in rows]


def loader() -> Any:
    return torch.utils.data.DataLoader(pairs(), batch_size=4)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_CONFIG_DIR"]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("block", shown("for_model"))
def test_readme_loop_runs_as_shown(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "WandbSink" in block:
        pytest.importorskip("wandb")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs, targets = next(iter(loader()))
    loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    names = {"torch": torch, "model": model, "optimizer": optimizer, "batches": loader(), "loss": loss}
    exec(compile(block, str(README), "exec"), names)
    assert "Anomaly" not in capsys.readouterr().out


@pytest.mark.parametrize("block", shown("integrations.hugging_face"))
def test_readme_hugging_face_trainer_runs_as_shown(block: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=3, use_cpu=True, report_to=[], disable_tqdm=True, dataloader_pin_memory=False
    )
    dataset = [{"input_ids": inputs, "labels": inputs} for inputs, _ in pairs()]
    names = {"model": transformers.LlamaForCausalLM(config), "args": args, "dataset": dataset}
    exec(compile(block, str(README), "exec"), names)
    assert len((tmp_path / "monitor/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize("block", shown("integrations.lightning"))
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_readme_lightning_trainer_runs_as_shown(block: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB))

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]).flatten(0, 1), batch[1].flatten())

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    exec(compile(block, str(README), "exec"), {"module": Module(), "loader": loader()})
    assert len((tmp_path / "monitor/metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 100
