import sys
from pathlib import Path

import pytest

from minigpt.cli.main import run


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command line says to a mistake."""
    assert run(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_lab_refuses_a_configuration_that_cannot_be_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    assert "num_heads" in refusal(capsys, "lab", "stability", "--set", "model.num_heads=3")
    assert not list(tmp_path.iterdir())


def test_lab_refuses_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in refusal(capsys, "lab", "run", "nowhere.py")


def test_lab_names_the_extra_when_there_is_nothing_to_draw_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    said = refusal(capsys, "lab", "stability", "--short")

    assert "pip install 'minigpt[lab]'" in said
    assert "--no-plot" in said


@pytest.mark.parametrize("option", ["--seeds=0", "--processes=0", "--output="])
def test_lab_refuses_numbers_and_names_that_cannot_be(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option.partition("=")[0] in refusal(capsys, "lab", "stability", option)
