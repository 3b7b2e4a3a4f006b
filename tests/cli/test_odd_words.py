"""What fuzzing found on the command line: each once a traceback, a silent default or more than one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.cli.main import USER_ERROR, run
from minigpt.errors import CheckpointError
from minigpt.training.folder import check_name
from tests.cli.test_surroundings import shell


def _error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config="],
        ["train", "--run-dir="],
        ["train", "--resume="],
        ["train", "--device="],
        ["memory", "--config= "],
        ["generate", ""],
        ["evaluate", "--device=", "run"],
        ["diagnose", ""],
        ["replay", ""],
        ["lab", "drill", "--traces="],
    ],
)
def test_an_empty_value_is_no_wish_for_the_default(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "it is empty; give a value, or leave it out" in _error(arguments, capsys)


def test_a_prompt_may_be_empty(saved_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "--prompt", "", "--max-new-tokens", "1", str(saved_run)]) == 0


def test_a_nul_character_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NUL" in _error(["train", "--run-dir", "a\x00b"], capsys)


def test_a_line_end_in_a_name_stays_in_the_line(saved_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "new\\nline" in _error(["generate", "--device=new\nline", str(saved_run)], capsys)
    assert "new\\nline" in _error(["config", "show", "--config=new\nline.yaml"], capsys)


def test_an_escape_sequence_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\\x1b[31m" in _error(["config", "show", "--config", "\x1b[31m.yaml"], capsys)


def test_a_word_of_any_length_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(_error(["config", "list", "x" * 5000], capsys)) < 500
    assert len(_error(["config", "show", "--config", "x/" * 2000], capsys)) < 500


def test_a_device_number_of_any_length_is_refused(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such device" in _error(
        ["generate", "--device=cuda:" + "1" * 5000, str(saved_run)], capsys
    )


@pytest.mark.parametrize(("name", "why"), [("\udcff", "not UTF-8"), ("x/" * 300, "300 folders deep")])
def test_a_run_folder_that_records_cannot_hold_is_refused(name: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        check_name(Path(name))


@pytest.mark.parametrize(
    "settings",
    [
        "MINIGPT_CACHE=",
        "COLUMNS=0",
        "COLUMNS=x",
        "TERM=dumb",
        "LC_ALL=C PYTHONUTF8=0",
        "PYTHONHASHSEED=1",
        "OMP_NUM_THREADS=abc",
        "HOME=",
    ],
)
def test_odd_surroundings_are_no_reason_to_fail(settings: str) -> None:
    done = shell(f'env {settings} "$PYTHON" -m minigpt config show </dev/null')
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_streams_are_no_reason_to_fail() -> None:
    assert shell('"$PYTHON" -m minigpt config show <&- >&- 2>&-').returncode == 0
    assert shell('"$PYTHON" -m minigpt config show --config gone <&- >&- 2>&-').returncode == USER_ERROR


def test_bytes_that_are_no_text_are_refused_in_a_line() -> None:
    command: list[str | bytes] = [
        sys.executable,
        "-m",
        "minigpt",
        "config",
        "show",
        b"--set",
        b"data.source=\xff",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == USER_ERROR
    assert b"control characters or broken Unicode" in done.stderr
    assert done.stderr.count(b"\n") == 1
