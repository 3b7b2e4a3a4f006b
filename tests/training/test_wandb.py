"""`monitor.wandb.project` in a run of MiniGPT's own."""

import sys
from pathlib import Path

import pytest

from minigpt.errors import ConfigError, MissingExtraError
from tests.training.tiny_run import Workshop, read_lines
from tests.training_monitor.integrations.wandb_file import records


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no settings of the machine that tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)


def test_a_run_has_its_steps_in_weights_and_biases_when_a_project_is_named(
    workshop: Workshop, tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    run_dir = tmp_path / "run"
    named = "monitor.wandb.project=minigpt", "monitor.wandb.mode=offline"
    assert workshop.train(run_dir, *named, "training.max_steps=5") == 0
    found = records(run_dir)
    own = {record["step"]: record["loss"] for record in read_lines(run_dir / "metrics.jsonl")}
    assert {int(row["_step"]): row["train/loss"] for row in found if "train/loss" in row} == own
    assert [row["_step"] for row in found if "validation/loss" in row]
    # and the folder is still known as a run's
    assert workshop.train(run_dir, "training.max_steps=1") == 0


def test_a_run_says_what_to_install_when_weights_and_biases_is_not_there(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        MissingExtraError, match=r"wandb.project = minigpt needs .* pip install 'minigpt\[wandb\]'"
    ):
        workshop.train(tmp_path / "run", "monitor.wandb.project=minigpt")
    assert not any((tmp_path / "run").glob("[!.]*"))


def test_a_run_says_how_to_log_in_when_nobody_is(workshop: Workshop, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(ConfigError, match="wandb login"):
        workshop.train(tmp_path / "run", "monitor.wandb.project=minigpt")
