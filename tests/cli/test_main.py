import errno
import os
import subprocess
import sys

import pytest
import typer

import minigpt
from minigpt.cli.main import BROKEN_PIPE, INTERRUPTED, USER_ERROR, app, run
from minigpt.cli.options import with_resume_value


@pytest.mark.parametrize(
    ("arguments", "rewritten"),
    [
        (["train", "--resume"], ["train", "--resume=auto"]),
        (["train", "--resume", "--config", "small"], ["train", "--resume=auto", "--config", "small"]),
        (["train", "--resume", "a/b.pt"], ["train", "--resume", "a/b.pt"]),
        (["train", "--resume=a/b.pt"], ["train", "--resume=a/b.pt"]),
        (["train", "--config", "small"], ["train", "--config", "small"]),
        (["generate", "--", "--resume"], ["generate", "--", "--resume"]),
        ([], []),
    ],
)
def test_resume_takes_its_path_or_none(arguments: list[str], rewritten: list[str]) -> None:
    assert with_resume_value(arguments) == rewritten


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: minigpt [OPTIONS] COMMAND [ARGS]...")
    assert "minigpt train --config small  " in out
    assert "  prepare " in out


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if not command.hidden))
def test_every_command_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.count(f"\n  minigpt {name} ") >= 1


def test_help_imports_nothing_heavy() -> None:
    commands = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    asked = [["--version"], ["lab", "drill", "--help"], *([name, "--help"] for name in commands)]
    script = (
        "import sys; from minigpt.cli.main import run; run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'tokenizers'} & set(sys.modules)\n"
        # typer itself imports pydantic to read a command's options.
        f"assert not any([run(line) for line in {asked}])\n"
        "heavy |= {'torch', 'numpy', 'yaml', 'tokenizers', 'tensorboard'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"minigpt {minigpt.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["prpare"], "error: No such command 'prpare'. Did you mean 'prepare'? (see: minigpt --help)\n"),
        (["config", "show", "--confg", "x"], "error: No such option: --confg"),
        (["config", "show", "--config"], "error: Option '--config' requires an argument."),
        (["config", "show", "surplus"], "error: Got unexpected extra argument"),
        (["config", "show", "--config", "smal"], "error: unknown preset 'smal'; did you mean small?"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


def test_two_mistakes_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--set", "a=1", "--set", "b=2"]) == USER_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert [line[:16] for line in lines] == ["error: --set a=1", "error: --set b=2"]


def test_an_interruption_is_one_line_and_exit_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minigpt.config.presets.presets", interrupted)
    assert run(["config", "list"]) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_that_left_is_no_reason_to_complain() -> None:
    command = [sys.executable, "-m", "minigpt", "config", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == BROKEN_PIPE


@pytest.mark.parametrize("name", ["No space left on device", "Permission denied"])
def test_what_the_machine_refuses_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = next(number for number in errno.errorcode if os.strerror(number) == name)

    def refused() -> None:
        raise OSError(number, name, "/data/x")

    monkeypatch.setattr("minigpt.config.presets.presets", refused)
    assert run(["config", "list"]) == USER_ERROR
    assert capsys.readouterr().err == f"error: /data/x: {name}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise FileNotFoundError(errno.ENOENT, "gone", "x")

    monkeypatch.setattr("minigpt.config.presets.presets", broken)
    with pytest.raises(FileNotFoundError):
        run(["config", "list"])
