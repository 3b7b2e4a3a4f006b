"""The command: a line a file, a summary, and what a script can go by."""

import json
from pathlib import Path

import pytest

from minigpt.cli.main import run


def test_verify_exits_with_0_for_good_and_2_for_damaged_files(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = saved_run / "checkpoint_step_2.pt"
    assert run(["verify", str(newest)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("good     checkpoint_step_2.pt: step 2, ")
    assert lines[1].startswith("good: 1 file checked, none is damaged; to go on from it: ")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run(["verify", str(saved_run)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("damaged  checkpoint_step_2.pt: its end is not that of a") for line in lines)
    assert lines[-1].startswith("damaged: ")
    assert "--resume takes checkpoint_step_1.pt" in lines[-1]


def test_verify_gives_one_json_object_when_asked(saved_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved_run / "checkpoint_step_2.pt").write_bytes(b"")
    assert run(["verify", str(saved_run), "--json"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["good"] is False
    assert told["resume_from"] == str(saved_run / "checkpoint_step_1.pt")
    damaged = {entry["file"]: entry["text"] for entry in told["files"] if entry["status"] == "damaged"}
    assert damaged["checkpoint_step_2.pt"].startswith("it is empty")


def test_verify_says_in_one_line_that_there_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(tmp_path / "nothing")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1


def test_generate_and_evaluate_say_which_newer_checkpoint_they_passed_over(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (saved_run / "checkpoint_step_2.pt").write_bytes(b"")
    for command in (["generate", str(saved_run), "--max-new-tokens", "1"], ["evaluate", str(saved_run)]):
        assert run([*command, "--device", "cpu"]) == 0
        told = capsys.readouterr().err
        assert (
            f"warning: skipped a damaged checkpoint: {saved_run / 'checkpoint_step_2.pt'}: it is empty"
            in told
        )
