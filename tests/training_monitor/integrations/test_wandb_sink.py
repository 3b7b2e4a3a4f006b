import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.wandb import WandbConfig, WandbSink
from tests.training_monitor.integrations.wandb_file import records

WITHOUT_WANDB = """
import sys
sys.modules["wandb"] = None
from pathlib import Path
from minigpt.training_monitor.sinks.wandb import WandbConfig, WandbSink
try:
    WandbSink(WandbConfig(project="minigpt"), Path("."))
except ImportError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login, no settings and no network of the machine that tests."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))


def test_wandb_offline_has_every_step_and_the_marks_of_anomalies(tmp_path: Path) -> None:
    sink = WandbSink(WandbConfig(project="minigpt", mode="offline"), tmp_path, group="small")
    for step in range(1, 21):
        loss = math.nan if step == 20 else 3.0 - 0.1 * step
        sink.step(StepSignals(step, loss, 0.5, lr=1e-3, group_norms={"blocks.0": 0.4}), log=False)
    text = "⚠️ Anomaly detected at step 20: nan_loss\n   seen: NaN"
    sink.event(Event(20, "anomaly", "nan_loss", text, interrupts=True, data={"status": "sustained"}))
    sink.event(Event(20, "save", "save", "saved"))
    sink.evaluation(20, {"loss": 2.5})
    sink.close()
    found = records(tmp_path)
    losses = {int(row["_step"]): row["train/loss"] for row in found if "train/loss" in row}
    assert list(losses) == list(range(1, 21))
    assert losses[19] == 3.0 - 0.1 * 19
    assert [row["_step"] for row in found if "train_layers/grad_norm_blocks.0" in row] == [10, 20]
    (marked,) = [row for row in found if "anomalies/nan_loss" in row]
    assert (marked["_step"], marked["anomalies/nan_loss"], marked["validation/loss"]) == (20, 2.0, 2.5)
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/monitor/events_*.table.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == ["step", "kind", "name", "status", "text"]
    assert content["data"] == [[20, "anomaly", "nan_loss", "sustained", text]]


def test_wandb_says_how_to_go_on_when_nobody_is_logged_in(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"run `wandb login`, or set monitor\.wandb\.mode=offline"):
        WandbSink(WandbConfig(project="minigpt"), tmp_path)


def test_wandb_names_the_package_when_it_is_not_installed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_WANDB], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "the Weights & Biases sink needs the package wandb: pip install wandb"


def test_wandb_config_refuses_an_empty_project() -> None:
    with pytest.raises(ValueError, match="a name, or null"):
        WandbConfig(project=" ")
