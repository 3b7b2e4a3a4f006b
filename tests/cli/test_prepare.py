import os
import signal
from pathlib import Path
from typing import Any

import pytest

from minigpt.cli.main import INTERRUPTED, USER_ERROR, run
from minigpt.data.manifest import read_manifest
from minigpt.data.split import Split, plan_split


def _arguments(folder: Path, source: Path) -> list[str]:
    settings = {
        "data.source": source,
        "data.cache_dir": folder / "cache",
        "data.tokenizer.kind": "bytes",
        "data.validation_fraction": 0.5,
        "data.num_workers": 1,
    }
    return ["prepare", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Eight files of 1,000 bytes and an empty one."""
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"{number}" * 1000, encoding="utf-8")
    (folder / "empty.txt").touch()
    return folder


def test_prepare_says_what_it_made(tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_arguments(tmp_path, books)) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["text"] == f"0.0 MB of {books}"
    assert lines["tokenizer"] == "vocabulary of 257, 1.00 bytes a token"
    assert "empty" in lines["skipped"]
    assert "MB/s" in lines["took"]
    assert Path(lines["folder"]).is_relative_to(tmp_path / "cache")
    manifest = read_manifest(Path(lines["folder"]))
    assert manifest is not None
    train, validation = manifest.train, manifest.validation
    assert train.bytes + validation.bytes == 8000
    assert lines["documents"] == f"{train.documents} to train on, {validation.documents} to validate"
    assert lines["tokens"] == f"{train.tokens:,} to train on, {validation.tokens:,} to validate"


def test_prepare_finds_its_work_done_when_run_again(
    tmp_path: Path, books: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        assert run(_arguments(tmp_path, books)) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_prepare_refuses_text_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_arguments(tmp_path, tmp_path / "nothing")) == USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "nothing" in error
    assert error.count("\n") == 1


def test_prepare_leaves_nothing_behind_when_interrupted(
    tmp_path: Path, books: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any) -> Split:
        os.kill(os.getpid(), signal.SIGINT)
        return plan_split(*arguments)

    monkeypatch.setattr("minigpt.data.prepare.plan_split", interrupted)
    assert run(_arguments(tmp_path, books)) == INTERRUPTED
    assert "stopped" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".bin", ".json")]
