import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.checkpoint.lock import locked_folder
from minigpt.errors import CheckpointError

HOLD = """
import sys, time
from pathlib import Path
from minigpt.checkpoint.lock import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_process_is_told_who_holds_the_folder_and_gets_it_when_the_first_was_killed(
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True, env=environment
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="is in use by") as caught, locked_folder(run_dir):
            pass
        assert f"process {holder.pid} on {socket.gethostname()}" in str(caught.value)
        assert "--run-dir" in str(caught.value)
        holder.send_signal(signal.SIGKILL)
    assert (run_dir / ".lock_holder").exists()
    with locked_folder(run_dir):
        assert str(os.getpid()) in (run_dir / ".lock_holder").read_text()


def test_folder_is_free_again_when_the_block_ends(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_folder(tmp_path):
            pass


def test_lock_refuses_in_one_line_when_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(CheckpointError, match=r"cannot write to the run folder .*--run-dir"),
        locked_folder(tmp_path / "file" / "run"),
    ):
        pass


def test_refused_run_leaves_no_folder_behind_when_the_lock_made_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "checkpoints" / "run"
    with pytest.raises(KeyError), locked_folder(run_dir):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked_folder(run_dir):
        (run_dir / "config.yaml").touch()
    assert sorted(path.name for path in run_dir.iterdir()) == [".lock", "config.yaml"]
    # A folder that was there before stays.
    (tmp_path / "own").mkdir()
    with locked_folder(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir()


def test_lock_names_the_file_when_one_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="file is a file; choose"),
        locked_folder(tmp_path / "file" / "run"),
    ):
        pass
