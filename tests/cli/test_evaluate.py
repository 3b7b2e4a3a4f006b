import math
from pathlib import Path

import pytest

from minigpt.cli.main import USER_ERROR, run


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    assert run(["evaluate", *arguments, "--device", "cpu"]) == 0
    return dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())


def number(text: str) -> float:
    return float(text.split()[0].replace(",", ""))


def test_evaluate_measures_the_runs_own_validation_split(
    saved_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(capsys, str(saved_run))
    loss = number(found["loss"])
    # An untrained model over 320 padded ids.
    assert loss == pytest.approx(math.log(320), rel=0.02)
    assert number(found["perplexity"]) == pytest.approx(math.exp(loss), rel=0.01)
    tokens, size = number(found["over"]), number(found["over"].split(", ")[1])
    assert number(found["bits per byte"]) == pytest.approx(loss / math.log(2) * tokens / size, rel=0.01)
    assert found["checkpoint"].strip() == f"{saved_run / 'checkpoint_step_2.pt'} (step 2)"


def test_evaluate_reads_other_text_with_the_models_tokenizer(
    saved_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for index in range(10):
        (other / f"{index}.txt").write_text(f"{index} lines of quite another book\n" * 30, encoding="utf-8")
    found = evaluated(
        capsys, str(saved_run), "--set", f"data.source={other}", "--set", "data.validation_fraction=0.5"
    )
    own = evaluated(capsys, str(saved_run))
    assert number(found["over"]) > number(own["over"])
    assert number(found["loss"]) == pytest.approx(math.log(320), rel=0.03)


@pytest.mark.parametrize("override", ["model.num_layers=2", "data.tokenizer.kind=bpe", "training.seed=1"])
def test_evaluate_refuses_to_change_anything_but_the_data(
    saved_run: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    assert run(["evaluate", str(saved_run), "--set", override]) == USER_ERROR
    error = capsys.readouterr().err
    assert f"--set {override}: only the data can change here" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "override", ["data.source=/no/such/folder", "data.sauce=x", "data.validation_fraction=2"]
)
def test_evaluate_refuses_wrong_data_in_one_line(
    saved_run: Path, capsys: pytest.CaptureFixture[str], override: str
) -> None:
    assert run(["evaluate", str(saved_run), "--set", override]) == USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
