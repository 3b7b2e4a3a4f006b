import json
from pathlib import Path

import pytest

from minigpt.cli.main import USER_ERROR, run

TINY = [
    *("--set", "training.device=cpu"),
    *("--set", "model.num_layers=3"),
    *("--set", "model.hidden_size=32"),
    *("--set", "model.num_heads=2"),
    *("--set", "model.context_length=32"),
    *("--set", "data.tokenizer.kind=bytes"),
    *("--set", "training.tokens_per_step=256"),
    *("--set", "training.micro_batch_size=4"),
]


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a text of its own and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIGPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    for number in range(10):
        (tmp_path / "text" / f"{number}.txt").write_text(f"{number} " * 500, encoding="utf-8")
    TINY[:0] = [] if "data.source=text" in TINY else ["--set", "data.source=text"]
    return tmp_path


def test_plan_says_all_that_a_run_will_need(capsys: pytest.CaptureFixture[str], text: Path) -> None:
    assert run(["plan", "--config", "small", *TINY]) == 0
    said = capsys.readouterr().out
    for part in (
        "Plan of small on CPU",
        "3 layers x 32, 2 heads, context 32, vocabulary 320",
        "1,200 steps x 256 tokens = 307 k tokens",
        "text: not prepared yet",
        "one and two eager blocks timed just now",
        "4 checkpoints x",
        "free in checkpoints/pretrain_small",
        "Memory of a training step of small",
        "micro_batch_size 4 (as set) x 32 tokens, accumulated 2 times",
        "activations: mlp",
        "logits and loss",
        "fits, with",
        "The largest micro-batch that fits",
        "training.micro_batch_size=2 ",
        "training.activation_checkpointing=selective ",
        "zero-1",
    ):
        assert part in said
    assert not (text / "cache" / "prepared").exists()
    assert not (text / "checkpoints").exists()


def test_plan_counts_epochs_when_the_text_is_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "--config", "small", *TINY]) == 0
    capsys.readouterr()
    assert run(["plan", "--config", "small", "--no-try-out", "--json", *TINY]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["corpus_tokens"] > 5000
    assert found["epochs"] == pytest.approx(1200 * 256 / found["corpus_tokens"])
    assert found["seconds"] is None
    assert sum(found["memory"]["parts"].values()) == found["memory"]["peak"]


def test_plan_goes_on_when_the_text_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--config", "small", "--no-try-out", *TINY, "--set", "data.source=nowhere/"]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "nowhere/" in said
    assert "peak" in said


def test_plan_of_a_model_beyond_this_machine_is_told_without_trying(
    capsys: pytest.CaptureFixture[str],
) -> None:
    giant = ["model.hidden_size=16384", "model.num_layers=96", "model.num_heads=128"]
    sets = [word for override in giant for word in ("--set", override)]
    assert run(["plan", "--config", "medium", "--set", "training.device=cpu", *sets]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "not tried out here" in said
    assert "Not even a micro-batch of one sequence fits" in said
    assert "TOO LITTLE" in said


def test_plan_keeps_its_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memory", "--config", "small", "--no-try-out", *TINY]) == 0
    assert "Memory of a training step of small" in capsys.readouterr().out


def test_plan_refuses_a_batch_that_does_not_divide(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--set", "training.tokens_per_step=1000"]) == USER_ERROR
    assert "training.tokens_per_step = 1000 is not a multiple" in capsys.readouterr().err
