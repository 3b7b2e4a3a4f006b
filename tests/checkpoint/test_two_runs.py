"""Two runs in one folder: exactly one, whatever is done to the folder, and a dead one is in nobody's way."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minigpt.checkpoint.kernel_lock import SOFT_LOCK_NAME
from minigpt.checkpoint.lock import HOLDER_NAME, locked_folder
from minigpt.errors import CheckpointError

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

HOLD = """
import os, sys, time
from pathlib import Path
from minigpt.checkpoint.lock import locked_folder
if "no locks" in sys.argv:
    import errno, fcntl
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
with locked_folder(Path(sys.argv[1])):
    if "child" in sys.argv:
        child = os.fork()
        if child == 0:
            time.sleep(60)
        print(child, flush=True)
    print("held", flush=True)
    time.sleep(60)
"""
RACE = """
import os, sys
from pathlib import Path
from minigpt.checkpoint.lock import locked_folder
from minigpt.errors import CheckpointError
start, end, found = os.pipe(), os.pipe(), os.pipe()
for _ in range(20):
    if os.fork() == 0:
        os.close(start[1]); os.close(end[1])
        os.read(start[0], 1)  # all at the same instant: when the writing end is closed
        try:
            with locked_folder(Path(sys.argv[1])):
                os.write(found[1], f"won {os.getpid()}\\n".encode())
                os.read(end[0], 1)
        except CheckpointError as error:
            os.write(found[1], f"lost: {error}\\n".encode())
        os._exit(0)
os.close(start[1])
text = b""
while text.count(b"\\n") < 20:
    text += os.read(found[0], 65536)
os.close(end[1])
for _ in range(20):
    os.wait()
print(text.decode(), end="")
"""


@contextmanager
def holding(run_dir: Path, *how: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds the folder, and what it said before; killed in the end."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir), *how], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    with holder:
        assert holder.stdout is not None
        said = ""
        while not said.endswith("held\n"):
            line = holder.stdout.readline()
            assert line, "the holder died"
            said += line
        yield holder, said
        holder.kill()


def assert_refused(run_dir: Path, holder: subprocess.Popen[str]) -> str:
    with (
        pytest.raises(CheckpointError, match=f"is in use by process {holder.pid} on") as caught,
        locked_folder(run_dir),
    ):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_exactly_one_of_twenty_wins_and_all_others_name_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path / "new" / "run")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    (winner,) = [line.split()[1] for line in lines if line.startswith("won")]
    lost = [line for line in lines if line.startswith("lost")]
    assert len(lost) == 19
    assert all(f"is in use by process {winner} on " in line for line in lost)


def test_second_run_is_refused_whatever_name_leads_to_the_folder(tmp_path: Path) -> None:
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    with holding(run_dir) as (holder, _):
        (tmp_path / "link").symlink_to(run_dir)
        assert_refused(tmp_path / "link", holder)
        assert_refused(tmp_path / "link" / ".." / "run", holder)
        # Nor does it help to remove the lock's files under it, or to move it.
        for path in run_dir.iterdir():
            if path.name != HOLDER_NAME:
                path.unlink()
        assert_refused(run_dir, holder)
        run_dir.rename(moved)
        assert_refused(moved, holder)
        with locked_folder(run_dir):  # another folder of the same name
            pass


def test_killed_run_is_in_nobody_s_way_when_a_child_of_it_lives_on(tmp_path: Path) -> None:
    with holding(tmp_path / "run", "child") as (holder, said):
        child = int(said.split()[0])
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        try:
            os.kill(child, 0)
            with locked_folder(tmp_path / "run"):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_folder_is_known_again_when_it_is_moved_away_or_deleted(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with locked_folder(run_dir) as held:
        assert held.lost() is None
        run_dir.rename(tmp_path / "moved")
        lost = held.lost()
        assert lost is not None
        assert (lost.text, lost.is_deleted) == (f"was moved to {tmp_path / 'moved'}", False)
        run_dir.mkdir()
        lost = held.lost()
        assert lost is not None
        assert lost.text.endswith("and another folder is in its place")
        run_dir.rmdir()
        (tmp_path / "moved").rename(run_dir)
        assert held.lost() is None
        for path in run_dir.iterdir():
            path.unlink()
        run_dir.rmdir()
        lost = held.lost()
        assert lost is not None
        assert (lost.text, lost.is_deleted) == ("was deleted", True)
        held.take_anew()
        assert held.lost() is None
        assert f"process {os.getpid()}" in (run_dir / HOLDER_NAME).read_text()


def test_deleted_folder_is_not_taken_anew_when_another_run_is_in_its_place(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with locked_folder(run_dir) as held:
        for path in run_dir.iterdir():
            path.unlink()
        run_dir.rmdir()
        with holding(run_dir) as (holder, _):
            with pytest.raises(CheckpointError, match=f"is in use by process {holder.pid}"):
                held.take_anew()
            holder.kill()
            holder.wait()
        (run_dir / "checkpoint_step_1.pt").touch()
        with pytest.raises(CheckpointError, match="holds something else"):
            held.take_anew()
    assert (run_dir / "checkpoint_step_1.pt").exists()


def test_marker_protects_when_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    run_dir = tmp_path / "run"
    with holding(run_dir, "no locks") as (holder, _):
        line = assert_refused(run_dir, holder)
        assert f"if that process is not running, remove {run_dir / SOFT_LOCK_NAME}" in line
        holder.kill()
        holder.wait()
    assert (run_dir / SOFT_LOCK_NAME).exists()
    # Of a process of this machine that is dead, it is known.
    with locked_folder(run_dir):
        pass


def test_half_files_of_any_process_are_gone_when_the_folder_is_held(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    # A container that starts again has the process id that it had: this one is alive, and yet it is another.
    for name in (f".checkpoint_step_3.pt.tmp-elsewhere_1-{os.getpid()}-0a", ".metrics.jsonl.7.tmp", ".mine"):
        (run_dir / name).write_text("half")
    with locked_folder(run_dir):
        assert {path.name for path in run_dir.iterdir()} == {".lock", HOLDER_NAME, ".mine"}
