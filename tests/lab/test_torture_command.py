"""The short form of scripts/torture_resume.py: what it does for hours, for seconds; and that it can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.lab.torture.command import main

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture_resume.py"
FORGETS_RANDOM_STATES = """
from minigpt.training import state
state.restore_rng = lambda saved, device: None
"""
FORGETS_TO_FLUSH_FOLDERS = """
from minigpt import atomic
from minigpt.training import aside, folder
real = atomic.sync
atomic.sync = aside.sync = folder.sync = lambda path: None if path.is_dir() else real(path)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it forks")


@pytest.fixture(scope="module")
def _held_up_calls() -> None:
    """Skips where file calls cannot be held up."""
    program = "import sys; from minigpt.lab.torture.seccomp import refusal; sys.exit(refusal())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip())


needs_held_up_calls = pytest.mark.usefixtures("_held_up_calls")


def torture(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and what it printed; the calling process has threads, so it must not fork itself."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--folder", str(folder / "work"), "--processes", "1"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_runs_are_bit_equal_after_a_few_random_kills(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    words = ("--kills", "3", "--only", "wsd", "--fresh-share", "0", "--output", str(found), "--seed", "3")
    code, printed = torture(tmp_path, *words)
    assert code == 0, printed
    told = json.loads(found.read_text())
    assert told["blows"] >= 3
    assert told["wrong"] == 0
    assert not (tmp_path / "work").exists()


@needs_held_up_calls
def test_every_place_in_moving_an_earlier_run_aside_is_safe_in_a_power_failure(tmp_path: Path) -> None:
    # The first calls: the lock, the log, the moves, the new configuration.
    words = (
        "--points",
        "--power-loss",
        "--only",
        "over an old one",
        "--from",
        "10",
        "--to",
        "24",
        "--every",
        "3",
    )
    code, printed = torture(tmp_path, *words)
    assert code == 0, printed
    assert "moving an earlier run aside: rename" in printed


@needs_held_up_calls
@pytest.mark.parametrize(
    ("defect", "words", "named"),
    [
        (
            FORGETS_RANDOM_STATES,
            ("--points", "--only", "a resume", "--to", "1"),
            "checkpoint_step_8.pt model_state_dict",
        ),
        (
            FORGETS_TO_FLUSH_FOLDERS,
            ("--power-loss", "--only", "a first run", "--from", "120", "--to", "120"),
            "lost: checkpoint",
        ),
    ],
    ids=["a resume that forgets the random states", "names that nobody forces to the disk"],
)
def test_planted_defect_is_found_and_named(
    defect: str, words: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    (tmp_path / "defect.py").write_text(defect)
    code, printed = torture(tmp_path, *words, "--plant", str(tmp_path / "defect.py"))
    assert code == 1, printed
    assert named in printed
    assert "NOT EQUAL" in printed


def test_unknown_training_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["torture_resume.py", "--only", "earthquake"])
    assert main("") == 2
    assert capsys.readouterr().err == "error: --only earthquake: there is no such training\n"


def test_folder_that_holds_something_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    monkeypatch.setattr(sys, "argv", ["torture_resume.py", "--folder", str(tmp_path)])
    assert main("") == 2
    assert capsys.readouterr().err.startswith(f"error: --folder {tmp_path} is not empty")
