import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from minigpt.cli.main import INTERRUPTED, USER_ERROR, run


def generated(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["generate", *arguments, "--device", "cpu"]) == 0
    return capsys.readouterr().out


def test_generate_prints_the_prompt_and_its_continuation(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = generated(capsys, str(saved_run), "--prompt", "def ", "--max-new-tokens", "40", "--top-k", "0")
    assert text.startswith("def ")
    assert text.endswith("\n")
    assert len(text) > 20


def test_generate_repeats_itself_with_the_same_seed(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (str(saved_run), "--prompt", "a", "--max-new-tokens", "30", "--top-p", "0.9")
    first, second = (generated(capsys, *options, "--seed", "7") for _ in range(2))
    assert first == second != generated(capsys, *options, "--seed", "8")


def test_generate_takes_the_newest_the_best_or_the_given_checkpoint(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--prompt", "a", "--max-new-tokens", "30")
    newest = generated(capsys, str(saved_run), *options)
    given = generated(capsys, str(saved_run / "checkpoint_step_1.pt"), *options)
    assert newest == generated(capsys, str(saved_run / "checkpoint_step_2.pt"), *options)
    assert given == generated(capsys, str(saved_run), "--best", *options) != newest


def test_generate_warns_and_goes_on_when_the_newest_checkpoint_is_damaged(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (saved_run / "checkpoint_step_2.pt").write_bytes(b"half")
    assert run(["generate", str(saved_run), "--prompt", "a", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().err.startswith("warning: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature = -1.0"),
        (["--top-p", "2"], "top_p = 2.0"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "meta"], "device = meta: there is no such device; use auto"),
        (["--seed", str(2**64)], "seed"),
        (["--max-new-tokens", "0"], "max-new-tokens"),
    ],
)
def test_generate_refuses_a_wrong_option_in_one_line(
    saved_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["generate", str(saved_run), "--prompt", "a", *arguments]) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_generate_refuses_a_place_without_a_model_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.pt").write_text("no checkpoint")
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "notes.pt"):
        assert run(["generate", str(place)]) == USER_ERROR
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_generate_ends_cleanly_when_interrupted(saved_run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "minigpt",
        "generate",
        str(saved_run),
        "--prompt",
        "a",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        [*command, "--max-new-tokens", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's background jobs, and all that they start, ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(30)
        process.send_signal(signal.SIGINT)
        # Read on, or a full pipe would keep the process from ending.
        rest, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == INTERRUPTED
    assert rest.endswith(b"\n")
    assert b"Traceback" not in errors
