import json
from pathlib import Path

import pytest

from minigpt.cli.main import run
from minigpt.config.load import load_config


def test_list_names_every_preset_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "list"]) == 0
    medium, small = capsys.readouterr().out.splitlines()
    assert medium.startswith("medium  For ")
    assert small.startswith("small   For ")


def test_show_prints_a_file_that_loads_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "show", "--config", "medium", "--set", "optimizer.learning_rate=1e-3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# parameters: ")
    path = tmp_path / "mine.yaml"
    path.write_text(out, encoding="utf-8")
    assert load_config(str(path)).config == load_config("medium", ["optimizer.learning_rate=1e-3"]).config


def test_show_warns_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--config", "medium", "--set", "training.max_steps=12"]) == 0
    assert capsys.readouterr().err.startswith("warning: schedule.warmup_steps = 4000 ")


def test_show_works_for_a_given_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["--set", "data.tokenizer.kind=file", "--set", "data.tokenizer.path=t.json"]
    assert run(["config", "show", *overrides]) == 0
    assert capsys.readouterr().out.startswith("# vocabulary: as in t.json, which is not read here\n")


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


def test_config_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config"]) == 0
    assert "minigpt config list" in capsys.readouterr().out
