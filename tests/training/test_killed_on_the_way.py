"""What a kill leaves half done outside of the loop is done, or undone, by the next command."""

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_newest
from minigpt.training.aside import HALF_WAY, made_whole, set_aside, set_newer_aside
from minigpt.training.loop import train
from tests.training.tiny_run import Workshop, before_step, opened_run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock"))


@pytest.fixture
def half_moved(tmp_path: Path) -> Path:
    """A run's folder whose move aside was killed after the checkpoint."""
    run_dir = tmp_path / "run"
    (run_dir / HALF_WAY).mkdir(parents=True)
    (run_dir / HALF_WAY / "checkpoint_step_3.pt").write_text("earlier")
    (run_dir / "metrics.jsonl").write_text("earlier")
    return run_dir


def test_half_moved_run_is_whole_again_when_it_is_resumed(half_moved: Path) -> None:
    assert names(made_whole(half_moved)) == ["checkpoint_step_3.pt", "metrics.jsonl"]


def test_half_moved_run_is_moved_whole_when_a_new_one_starts(half_moved: Path) -> None:
    aside = set_aside(half_moved)
    assert aside is not None
    assert names(aside) == ["checkpoint_step_3.pt", "metrics.jsonl"]
    assert names(half_moved) == []


def test_whole_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_step_3.pt").write_text("mine")
    assert made_whole(tmp_path) == tmp_path
    assert names(tmp_path) == ["checkpoint_step_3.pt"]


def test_later_checkpoints_leave_no_hole_when_their_move_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (2, 3, 4, 6):
        (tmp_path / f"checkpoint_step_{step}.pt").touch()
    rename, moved = Path.rename, 0

    def killed_at_the_second(path: Path, target: Path) -> Path:
        nonlocal moved
        moved += 1
        if moved == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        set_newer_aside(tmp_path, 2)
    assert list(checkpoints_by_step(tmp_path)) == [2, 3, 4]


def test_resume_deletes_what_a_killed_retention_had_left(workshop: Workshop, run_dir: Path) -> None:
    assert workshop.train(run_dir) == 0
    kept = checkpoints_by_step(run_dir)
    shutil.copy(kept[12], run_dir / "checkpoint_step_2.pt")
    assert workshop.train(run_dir, resume="auto") == 0
    assert checkpoints_by_step(run_dir) == kept


def test_override_is_kept_once_when_it_is_typed_at_every_resume(workshop: Workshop, run_dir: Path) -> None:
    own = ("training.max_steps=3", "model.dropout=0.1")
    assert workshop.train(run_dir, *own) == 0
    for steps in (4, 5):
        own = (f"training.max_steps={steps}", "model.dropout=0.1")
        assert workshop.train(run_dir, *own, resume="auto") == 0
    kept = load_newest(run_dir).state["overrides"]
    assert kept == [f"training.max_steps={steps}" for steps in (3, 4, 5)] + ["model.dropout=0.1"]


def test_curves_have_each_step_once_in_tensorboards_server_when_a_first_run_was_killed(
    workshop: Workshop, run_dir: Path
) -> None:
    """The server takes a first mark of a session for a beginning, and discards nothing at it."""
    config = workshop.config()
    with opened_run(config, run_dir) as run:

        def killed() -> None:
            raise ConnectionAbortedError

        before_step(run, 7, killed)
        with pytest.raises(ConnectionAbortedError):
            train(run)
    assert workshop.train(run_dir, resume="auto") == 0
    events = EventAccumulator(str(run_dir / "monitor_logs"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Tensors("train/loss")] == list(range(1, 13))
    standing = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert standing == list(range(1, 13))


def test_revision_of_the_records_that_was_killed_leaves_nothing(workshop: Workshop, run_dir: Path) -> None:
    assert workshop.train(run_dir) == 0
    (run_dir / ".metrics.jsonl.0.tmp").write_text("{")
    assert workshop.train(run_dir, resume="auto") == 0
    assert not list(run_dir.glob(".metrics*"))
