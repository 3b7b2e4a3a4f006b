"""Which checkpoints were taken in health, and which of them to go back to."""

from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.health import before_trouble, health_mark, last_healthy, read_health
from minigpt.checkpoint.load import load_newest
from minigpt.checkpoint.save import save_checkpoint
from minigpt.errors import CheckpointError

SPIKE = {"loss_spike": "sustained"}


def save(
    run_dir: Path, step: int, open_findings: dict[str, str] | None = None, since: int | None = None
) -> Path:
    weights = {"w": torch.full((1000,), float(step))}
    mark = health_mark(open_findings or {}, since)
    return save_checkpoint(run_dir, step, {"model_state_dict": weights, **mark})


def steps_before(run_dir: Path, since: int | None, quarantine: int = 10) -> list[int]:
    return [health.step for health in before_trouble(run_dir, since, quarantine)]


def test_mark_says_what_was_open_and_whether_that_matters(tmp_path: Path) -> None:
    slow = {"throughput_drop": "sustained"}
    for step, found, healthy in (
        (1, {}, True),
        (2, SPIKE, False),
        (3, slow, True),
        (4, {**slow, **SPIKE}, False),
    ):
        health = read_health(save(tmp_path, step, found))
        assert health is not None
        assert (health.step, health.open_findings, health.healthy) == (step, found, healthy)
        assert torch.load(health.path)["healthy"] is healthy


def test_mark_is_missing_when_the_file_is_damaged_gone_or_no_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:500])
    torch.save({"weights": 1}, tmp_path / "checkpoint_step_2.pt")
    for step in (1, 2, 3):
        assert read_health(tmp_path / f"checkpoint_step_{step}.pt") is None
    assert last_healthy(tmp_path) is None
    assert steps_before(tmp_path, 9) == []


def test_last_healthy_is_the_newest_that_is_marked_so(tmp_path: Path) -> None:
    for step, found in ((9, {}), (100, {}), (200, SPIKE), (300, {"nan_loss": "suspected"})):
        save(tmp_path, step, found)
    health = last_healthy(tmp_path)
    assert health is not None
    assert health.step == 100
    loaded = load_newest(tmp_path, healthy=True)
    assert loaded.path.name == "checkpoint_step_100.pt"
    assert load_newest(tmp_path).path.name == "checkpoint_step_300.pt"
    loaded.path.write_bytes(b"")
    assert load_newest(tmp_path, healthy=True).path.name == "checkpoint_step_9.pt"


def test_checkpoint_is_not_healthy_when_a_later_one_knows_better(tmp_path: Path) -> None:
    """A slow decline is told long after it began."""
    for step, found, since in ((10, {}, None), (20, {}, None), (30, {}, None), (40, SPIKE, 15)):
        save(tmp_path, step, found, since)
    health = last_healthy(tmp_path)
    assert health is not None
    assert health.step == 10
    assert load_newest(tmp_path, healthy=True).path.name == "checkpoint_step_10.pt"
    # And over it was: what came later is as good as it says.
    save(tmp_path, 50)
    assert load_newest(tmp_path, healthy=True).path.name == "checkpoint_step_50.pt"


def test_load_says_so_when_no_checkpoint_is_healthy(tmp_path: Path) -> None:
    save(tmp_path, 5, SPIKE)
    with pytest.raises(CheckpointError, match="no checkpoint that is marked healthy; --resume alone"):
        load_newest(tmp_path, healthy=True)


def test_trouble_is_left_behind_by_the_quarantine_where_that_can_be(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        save(tmp_path, step)
    # Step 41 went wrong: the weights after step 40 gave its loss.
    assert steps_before(tmp_path, 41) == [30, 20, 10, 40]
    assert steps_before(tmp_path, 40) == [20, 10, 30]
    assert steps_before(tmp_path, 41, quarantine=0) == [40, 30, 20, 10]
    assert steps_before(tmp_path, 10) == []
    assert steps_before(tmp_path, None) == [50, 40, 30, 20, 10]


def test_fault_of_the_code_is_no_reason_to_distrust_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10, {"frozen_parameter": "sustained"})
    save(tmp_path, 20, SPIKE)
    assert steps_before(tmp_path, 50) == [10]
    assert last_healthy(tmp_path) is None


def test_damaged_checkpoint_is_neither_the_last_healthy_one_nor_gone_back_to(tmp_path: Path) -> None:
    """Its mark can still be read where the flipped bit lies in a weight."""
    for step in (10, 20, 30):
        save(tmp_path, step)
    newest = tmp_path / "checkpoint_step_30.pt"
    content = bytearray(newest.read_bytes())
    content[content.find(torch.full((4,), 30.0).numpy().tobytes()) + 100] ^= 1
    newest.write_bytes(content)
    assert torch.load(newest, mmap=True)["healthy"]
    health = last_healthy(tmp_path)
    assert health is not None
    assert health.step == 20
    assert steps_before(tmp_path, None) == [20, 10]
    loaded = load_newest(tmp_path, healthy=True)
    assert loaded.path.name == "checkpoint_step_20.pt"
    assert loaded.damaged == [f"{newest}: its content does not match its checksum"]


def test_what_a_damaged_checkpoint_says_of_earlier_ones_is_not_believed(tmp_path: Path) -> None:
    save(tmp_path, 10)
    path = save(tmp_path, 20, SPIKE, since=5)
    assert last_healthy(tmp_path) is None
    path.write_bytes(path.read_bytes() + b"more")
    health = last_healthy(tmp_path)
    assert health is not None
    assert health.step == 10
