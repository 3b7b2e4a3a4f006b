import pytest

from minigpt.cli.main import USER_ERROR, run


def test_memory_reports_the_parts_and_what_would_save(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["--set", "training.device=cpu", "--set", "training.micro_batch_size=4"]
    assert run(["memory", *overrides]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Memory of a training step of medium on CPU")
    for part in (
        "59.8 M parameters",
        "parameters (fp32)",
        "activations: mlp",
        "logits and loss",
        "peak",
        "available",
    ):
        assert part in text
    assert "training.micro_batch_size=2 " in text
    assert "training.activation_checkpointing=on " in text


def test_memory_refuses_a_batch_that_does_not_divide(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memory", "--set", "training.tokens_per_step=1000"]) == USER_ERROR
    assert "training.tokens_per_step = 1000 is not a multiple" in capsys.readouterr().err
