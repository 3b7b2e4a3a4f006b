"""What a shell, a terminal or torchrun can do to the command line."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.cli.main import USER_ERROR, run
from minigpt.errors import DeviceError, MiniGPTError, OtherRankError

REPOSITORY = Path(__file__).parents[2]


def shell(line: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHON": sys.executable}
    return subprocess.run(["sh", "-c", line], cwd=cwd, env=environment, capture_output=True, timeout=60)


def test_closed_stdout_swallows_what_is_printed() -> None:
    done = shell('"$PYTHON" -m minigpt config list >&-')
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_does_not_fit_on_its_disk_is_one_line_and_exit_code_2() -> None:
    done = shell('"$PYTHON" -m minigpt config list >/dev/full')
    assert (done.returncode, done.stderr) == (USER_ERROR, b"error: writing: No space left on device\n")
    # Nor does it matter where the complaint would go.
    assert shell('"$PYTHON" -m minigpt config list >/dev/full 2>/dev/full').returncode == USER_ERROR
    assert shell('"$PYTHON" -m minigpt config show nonsense 2>/dev/full').returncode == USER_ERROR


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EFBIG, errno.EMFILE, errno.ENOTCONN])
def test_what_the_machine_refuses_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), b"/a/file")

    monkeypatch.setattr("minigpt.config.presets.presets", refused)
    assert run(["config", "list"]) == USER_ERROR
    assert capsys.readouterr().err == f"error: /a/file: {os.strerror(number)}\n"


def test_what_an_ascii_terminal_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert run(["config", "list"]) == 0
    print("⚠️ Anomaly", flush=True)
    assert stream.buffer.getvalue().endswith(b"?? Anomaly\n")


def test_prompt_is_text_when_the_locale_is_not_utf_8(saved_run: Path) -> None:
    plain = 'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$PYTHON" -m minigpt generate --max-new-tokens 4'
    done = shell(f"{plain} --prompt 'é✓' '{saved_run}'")
    assert (done.returncode, done.stderr) == (0, b"")


def test_current_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell('rmdir "$PWD" && "$PYTHON" -m minigpt train', cwd=tmp_path / "gone")
    assert done.returncode == USER_ERROR
    assert done.stderr.startswith(b"error: the current folder cannot be used")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("error", "rank", "is_said"),
    [
        (MiniGPTError("the same everywhere"), "0", True),
        (MiniGPTError("the same everywhere"), "1", False),
        (DeviceError("this rank has no card"), "1", True),
        (OtherRankError("rank 0 has said it"), "0", False),
    ],
)
def test_one_rank_speaks_for_all_unless_the_trouble_is_its_own(
    error: MiniGPTError,
    rank: str,
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused() -> None:
        raise error

    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr("minigpt.config.presets.presets", refused)
    assert run(["config", "list"]) == USER_ERROR
    assert capsys.readouterr().err == (f"error: {error}\n" if is_said else "")
