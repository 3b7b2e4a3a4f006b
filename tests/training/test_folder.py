"""A run's folder: what stands in the way is moved whole or not at all, and a refusal leaves no trace."""

import errno
from pathlib import Path

import pytest

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.errors import CheckpointError
from minigpt.training.disk import disk_warnings
from minigpt.training.folder import check_log_file, set_aside, whole_or_nothing


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

    def warnings(free_mib: int, goes_on: bool = False) -> list[str]:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free_mib * mib}))
        return disk_warnings(tmp_path, CheckpointConfig(keep_last=2), 100, 10 * mib, goes_on=goes_on)

    assert warnings(40) == []
    (line,) = warnings(39)
    assert line.startswith("4 checkpoints of 10.0 MiB are to come")
    assert "39.0 MiB left" in line
    (tmp_path / "checkpoint_step_5.pt").touch()
    # An earlier run's is moved aside and stays; the run's own is one of the four.
    assert len(warnings(39)) == 1
    assert warnings(39, goes_on=True) == []
    with pytest.raises(
        CheckpointError, match=r"has 9\.00 MiB left, a checkpoint takes 10\.0 MiB; .*--run-dir"
    ):
        warnings(9)
