"""A run's folder: what stands in the way is moved whole or not at all, and a refusal leaves no trace."""

import errno
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.lock import HeldFolder, locked_folder
from minigpt.cli.main import run as command
from minigpt.errors import CheckpointError
from minigpt.training.aside import set_aside, whole_or_nothing
from minigpt.training.disk import disk_warnings
from minigpt.training.folder import check_log_file
from tests.training.tiny_run import Workshop


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder in which a run has left a checkpoint, its configuration and its curves; and the lock of the next."""
    run_dir = tmp_path / "run"
    (run_dir / "monitor_logs").mkdir(parents=True)
    for name in ("checkpoint_step_3.pt", "config.yaml", "monitor_logs/events", ".lock"):
        (run_dir / name).write_text("earlier")
    return run_dir


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_earlier_run_lands_beside_its_folder_when_that_is_reached_by_a_link(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(earlier)
    monkeypatch.chdir(tmp_path)
    aside = set_aside(link)
    assert aside is not None
    # As it can be typed from here.
    assert aside.parent == Path()
    assert aside.name.startswith("run_")
    assert names(aside) == ["checkpoint_step_3.pt", "config.yaml", "monitor_logs"]
    assert names(earlier) == [".lock"]


def test_earlier_run_of_the_current_folder_is_moved_out_of_it(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(earlier)
    aside = set_aside(Path())
    assert aside is not None
    assert aside.parent == earlier.parent


def test_earlier_run_stays_whole_when_it_cannot_be_moved(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = names(earlier), Path.rename

    def to_another_disk(path: Path, target: Path) -> Path:
        if path.name == "monitor_logs":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", to_another_disk)
    with pytest.raises(CheckpointError, match=r"cannot be moved aside .*cross-device link; .*--run-dir"):
        set_aside(earlier)
    assert names(earlier) == before
    assert names(earlier.parent) == ["run"]


def test_all_is_as_it_was_when_a_new_run_fails_before_its_first_checkpoint(earlier: Path) -> None:
    before = names(earlier)
    aside = set_aside(earlier)

    def start() -> None:
        with whole_or_nothing(earlier, aside):
            (earlier / "monitor_logs").mkdir()
            (earlier / "monitor_logs" / "new").touch()
            (earlier / "config.yaml").write_text("new")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        start()
    assert names(earlier) == before
    assert (earlier / "config.yaml").read_text() == "earlier"
    assert names(earlier.parent) == ["run"]


def test_nothing_is_undone_when_a_checkpoint_is_there(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_step_0.pt").touch()
    with pytest.raises(KeyboardInterrupt), whole_or_nothing(tmp_path, None):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["checkpoint_step_0.pt"]


def test_log_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "training.log"
    check_log_file(log)
    assert log.read_text() == ""
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*training\.log .*; move it out of the way"):
        check_log_file(tmp_path / "file" / "training.log")


def test_disk_is_measured_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two newest, the best and the one being written: four of 10 MiB."""
    mib = 1 << 20

    def warnings(free_mib: int, goes_on: bool = False, total: int = 100 * mib) -> list[str]:
        monkeypatch.setattr(
            "shutil.disk_usage", lambda _: type("Usage", (), {"free": free_mib * mib, "total": total})
        )
        return disk_warnings(tmp_path, CheckpointConfig(keep_last=2), 100, 10 * mib, goes_on=goes_on)

    assert warnings(40) == []
    (line,) = warnings(39)
    assert line.startswith("4 checkpoints of 10.0 MiB are to come")
    assert "39.0 MiB left" in line
    (tmp_path / "checkpoint_step_5.pt").touch()
    # An earlier run's is moved aside and stays; the run's own is one of the four.
    assert len(warnings(39)) == 1
    assert warnings(39, goes_on=True) == []
    # What is free is an estimate, and some file systems have none: the first save tells for sure.
    assert "9.00 MiB left" in warnings(9)[0]
    assert warnings(0, total=0) == []


def test_run_is_refused_before_anything_is_prepared_when_its_folder_is_in_use(
    workshop: Workshop, run_dir: Path
) -> None:
    with locked_folder(run_dir), pytest.raises(CheckpointError, match="is in use by process"):
        workshop.train(run_dir)
    assert not (workshop.folder / "cache").exists()


def test_resume_of_one_run_into_the_folder_of_another_is_refused_while_that_trains(
    workshop: Workshop, run_dir: Path
) -> None:
    """And what only reads may look at a folder in use."""
    assert workshop.train(run_dir, "training.max_steps=1") == 0
    with locked_folder(run_dir):
        with pytest.raises(CheckpointError, match="is in use by process"):
            workshop.train(run_dir, resume="auto")
        assert command(["diagnose", str(run_dir)]) in (0, 1, 3)
        assert command(["generate", str(run_dir), "--prompt", "a", "--max-new-tokens", "2"]) == 0
        other = run_dir.with_name("other")
        assert workshop.train(other, resume=str(run_dir)) == 0
    with locked_folder(other), pytest.raises(CheckpointError, match=r"other is in use by process"):
        workshop.train(other, resume=str(run_dir))


def test_start_is_refused_when_another_process_has_trained_on_meanwhile(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workshop.train(run_dir, "training.max_steps=1") == 0

    def too_late(folder: Path) -> AbstractContextManager[HeldFolder]:
        shutil.copy(folder / "checkpoint_step_1.pt", folder / "checkpoint_step_2.pt")
        return locked_folder(folder)

    monkeypatch.setattr("minigpt.training.pretrain.locked_folder", too_late)
    with pytest.raises(CheckpointError, match="was trained on by another process"):
        workshop.train(run_dir, resume="auto")
    assert (run_dir / "checkpoint_step_2.pt").exists()
