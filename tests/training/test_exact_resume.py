"""Train 2N steps == train, be killed with SIGKILL, resume, train on: equal to the last bit."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from minigpt.checkpoint.files import checkpoints_by_step
from tests.training.tiny_run import (
    LATE_PROGRAM,
    Process,
    Workshop,
    assert_same_run,
    curves_of,
    metrics_of,
    read_lines,
)

STEPS = 60
EVERYTHING_ON = (
    f"training.max_steps={STEPS}",
    "model.dropout=0.1",
    "model.value_embedding_layers=1",
    "training.eval_every_steps=7",
    "training.check_grad_flow=true",
    "training.check_grad_flow_every=9",
    "checkpoint.every_steps=8",
)


def killed_after_a_checkpoint(process: Process, run_dir: Path) -> int:
    """SIGKILL once there is a checkpoint and steps were recorded that it does not know; the checkpoint's step."""
    deadline = time.monotonic() + 60
    with process:
        newest = 0
        while newest < 7 or recorded_steps(run_dir) <= newest + 1:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.001)
            newest = max(checkpoints_by_step(run_dir), default=0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it had finished before it could be killed"
    return max(checkpoints_by_step(run_dir))


def recorded_steps(run_dir: Path) -> int:
    return (run_dir / "metrics.jsonl").read_bytes().count(b"\n")


@pytest.mark.parametrize(
    ("precision", "program"), [("off", LATE_PROGRAM), ("off", None), ("bf16", None), ("fp16", LATE_PROGRAM)]
)
def test_resumed_run_is_bit_equal_to_the_straight_one_when_it_was_killed(
    precision: str, program: str | None, workshop: Workshop, tmp_path: Path
) -> None:
    """Read late as on CUDA, and resumed without: when a step is read changes nothing."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    settings = (*EVERYTHING_ON, f"training.mixed_precision={precision}")
    victim = workshop.start(killed, *settings, program=program)
    step = killed_after_a_checkpoint(victim, killed)
    assert step <= recorded_steps(killed) < STEPS
    # The overrides need not be typed again.
    assert workshop.train(killed, resume="auto") == 0
    assert workshop.train(straight, *settings) == 0

    assert_same_run(straight, killed, STEPS)
    (resume,) = [event["text"] for event in read_lines(killed / "events.jsonl") if event["kind"] == "resume"]
    assert f"the session before (process {victim.pid} on " in resume
    assert f"what it did after step {step} is repeated" in resume
    metrics, curves = metrics_of(killed), curves_of(killed)
    assert [record["step"] for record in metrics] == list(range(1, STEPS + 1))
    assert [step for step, _ in curves["train/loss"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in curves["validation/loss"]] == [*range(7, STEPS, 7), STEPS]
    assert [step for step, _ in curves["grad_check/ok_params"]] == list(range(9, STEPS, 9))
    assert (metrics[0]["scaler_scale"] is not None) == (precision == "fp16")
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 1


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("recompute", ["off", "selective"])
def test_resumed_run_is_bit_equal_when_compiled_on_two_threads(
    recompute: str, workshop: Workshop, tmp_path: Path
) -> None:
    """Large enough for both threads to add to the same row of the embedding's gradient."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    settings = (
        *EVERYTHING_ON,
        "model.num_layers=1",
        "model.hidden_size=64",
        "model.context_length=64",
        "training.tokens_per_step=1024",
        "training.micro_batch_size=8",
        "training.mixed_precision=bf16",
        "training.compile=on",
        f"training.activation_checkpointing={recompute}",
        "training.eval_every_steps=1000",
    )
    with workshop.start(straight, *settings, threads=2) as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    killed_after_a_checkpoint(workshop.start(killed, *settings, threads=2), killed)
    with workshop.start(killed, threads=2, resume=True) as process:
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert "compiled in " in printed
    assert_same_run(straight, killed, STEPS)
