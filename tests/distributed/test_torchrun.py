"""Two ranks under torchrun against one process."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.files import checkpoints_by_step
from tests.training.tiny_run import Process, Workshop, evaluated_steps, metrics_of

# Three micro-batches a rank and step, and several epochs, so that windows with few targets fall on either rank.
SETTINGS = (
    "training.max_steps=24",
    "training.tokens_per_step=384",
    "checkpoint.keep_every_steps=8",
    "optimizer.eps=1e-4",
)


def finished(process: Process) -> str:
    with process:
        printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    return printed


def test_two_ranks_train_as_one_process_does_when_targets_are_uneven(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    process = workshop.start(two, *SETTINGS, ranks=2)
    assert workshop.train(one, *SETTINGS) == 0
    printed = finished(process)
    assert "Warning" not in printed
    # One of the ranks speaks and writes.
    assert printed.count("Finished 24 steps") == 1

    alone, together = metrics_of(one), metrics_of(two)
    assert len(alone) == len(together) == 24
    assert alone[-1]["epoch"] >= 3
    assert [r["tokens"] for r in alone] == [r["tokens"] for r in together]
    assert len({r["tokens"] for r in alone}) > 1
    assert [r["position"] for r in alone] == [r["position"] for r in together]
    for key, tolerance in (("loss", 1e-5), ("grad_norm", 1e-3)):
        assert [r[key] for r in together] == pytest.approx([r[key] for r in alone], rel=tolerance)
    assert evaluated_steps(one) == evaluated_steps(two)

    states = [torch.load(folder / "checkpoint_step_24.pt") for folder in (one, two)]
    torch.testing.assert_close(
        states[1]["model_state_dict"], states[0]["model_state_dict"], rtol=1e-3, atol=1e-4
    )
    assert [len(state["rng"]) for state in states] == [1, 2]
    assert states[1]["position"]["best_loss"] == pytest.approx(states[0]["position"]["best_loss"], rel=1e-5)

    # What two ranks saved, one goes on with, and says what cannot be exact.
    capsys.readouterr()
    assert workshop.train(two, resume=str(two / "checkpoint_step_16.pt")) == 0
    assert "not exact: 2 ranks saved it and 1 resume it" in capsys.readouterr().out
    resumed = metrics_of(two)
    assert [r["loss"] for r in resumed] == pytest.approx([r["loss"] for r in alone], rel=1e-5)


def pid_of_rank(launcher: Process, rank: int) -> int:
    """The process that torchrun started as `rank`."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"rank {rank} is not among {children}")


def wait_for_steps(launcher: Process, metrics: Path) -> None:
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 5):
        assert launcher.poll() is None, launcher.stdout and launcher.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the ranks in /proc")
def test_the_other_rank_says_in_one_line_that_one_was_killed(workshop: Workshop, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    launcher = workshop.start(run_dir, "training.max_steps=1000000", ranks=2)
    with launcher:
        wait_for_steps(launcher, run_dir / "metrics.jsonl")
        os.kill(pid_of_rank(launcher, 1), signal.SIGKILL)
        printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert printed.count("error: rank 0 lost another rank") == 1
    assert "minigpt/cli/main.py" not in printed


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the ranks in /proc")
def test_all_ranks_save_and_stop_when_one_of_them_is_told_to(workshop: Workshop, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    endless = ("training.max_steps=1000000", "checkpoint.every_steps=1000000", "model.dropout=0.1")
    launcher = workshop.start(run_dir, *endless, ranks=2)
    metrics = run_dir / "metrics.jsonl"
    with launcher:
        wait_for_steps(launcher, metrics)
        os.kill(pid_of_rank(launcher, 1), signal.SIGTERM)
        printed, _ = launcher.communicate(timeout=60)
    step = max(checkpoints_by_step(run_dir))
    assert step >= 5
    assert f"Interrupted after step {step}, saved in {run_dir}" in printed
    assert [record["step"] for record in metrics_of(run_dir)] == list(range(1, step + 1))
    saved = torch.load(run_dir / f"checkpoint_step_{step}.pt")
    assert not any(name.startswith("module.") for name in saved["model_state_dict"])
    # Each rank's own dropout goes on where it was.
    assert not torch.equal(saved["rng"][0]["torch"], saved["rng"][1]["torch"])


def test_one_rank_says_it_in_one_line_when_it_alone_cannot_go_on(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launcher = workshop.start(tmp_path / "file" / "run", ranks=2)
    with launcher:
        printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert printed.count("error: cannot write to the run folder") == 1
    # torchrun's own is all there is: no rank was left waiting.
    assert "minigpt/cli/main.py" not in printed


RANKS_DIFFER = """
import os
from dataclasses import replace
from minigpt.cli.main import main
from minigpt.training import observe

shared = observe._signals

def signals(run, *read):
    found = shared(run, *read)
    bad_for = {1: range(20, 31), 0: range(45, 60)}[int(os.environ["RANK"])]
    if found.step not in bad_for:
        return found
    return replace(found, batch=replace(found.batch, label_match=0.01), memory_bytes=10**12)

observe._signals = signals
main()
"""
"""`minigpt` where first rank 1 alone finds shuffled labels in its share of the batch, later rank 0 alone."""


def test_all_ranks_do_as_the_main_one_when_a_finding_is_one_rank_s_own(
    workshop: Workshop, tmp_path: Path
) -> None:
    acting = ("monitor.policy.on_sustained=stop", "monitor.policy.act_on=[label_mismatch]")
    settings = ("training.max_steps=60", "monitor.look_every_steps=7", *acting)
    with workshop.start(tmp_path / "run", *settings, ranks=2, program=RANKS_DIFFER) as launcher:
        printed, _ = launcher.communicate(timeout=100)
    # What rank 1 saw ended nothing and kept nobody waiting; the main rank's stop is a stop of both.
    assert "Stopped by the monitor after step 47 (cause: label_mismatch)" in printed
    assert "exitcode  : 4" in printed
    assert len(metrics_of(tmp_path / "run")) == 47
    assert (tmp_path / "run" / "crash_step_47.pt").exists()


ONE_RANK_IS_TOO_SMALL = """
import os
from minigpt.cli.main import main
from minigpt.model.gpt import GPT

forward, made = GPT.forward, []

def too_large(model, *inputs):
    made.append(1)
    if os.environ["RANK"] == "1" and len(made) > 8:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes")
    return forward(model, *inputs)

GPT.forward = too_large
main()
"""


def test_rank_that_runs_out_of_memory_says_which_setting_fits(workshop: Workshop, tmp_path: Path) -> None:
    program = ONE_RANK_IS_TOO_SMALL
    with workshop.start(tmp_path / "run", ranks=2, program=program) as launcher:
        printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert printed.count("error: out of memory in ") == 1
    assert " on rank 1: " in printed
    assert "--set training.micro_batch_size=2 needs about" in printed
    assert "minigpt/cli/main.py" not in printed
    assert checkpoints_by_step(tmp_path / "run")


DISK_REFUSES = """
from minigpt.cli.main import main
from minigpt.errors import NotWrittenError
from minigpt.training import save

write = save.save_checkpoint

def refused(run_dir, step, state):
    if 4 <= step < 12:
        raise NotWrittenError("the disk is full", "the disk is full")
    return write(run_dir, step, state)

save.save_checkpoint = refused
main()
"""
"""`minigpt` whose main rank, which alone writes, meets a full disk for a while."""


@pytest.mark.parametrize("policy", ["stop", "go_on"])
def test_no_rank_waits_when_the_disk_of_the_main_one_refuses(
    policy: str, workshop: Workshop, tmp_path: Path
) -> None:
    settings = (f"checkpoint.on_write_error={policy}", "checkpoint.keep_last=9")
    with workshop.start(tmp_path / "run", *settings, ranks=2, program=DISK_REFUSES) as launcher:
        printed, _ = launcher.communicate(timeout=100)
    assert printed.count("checkpoint_step_4.pt: the disk is full") == 1
    saved = list(checkpoints_by_step(tmp_path / "run"))
    if policy == "go_on":
        assert launcher.returncode == 0, printed
        assert printed.count("the disk takes checkpoints again") == 1
        assert saved == [0, 12]
    else:
        assert "exitcode  : 2" in printed
        assert printed.count("error: cannot write") == 1
        assert "minigpt/cli/main.py" not in printed
        assert saved == [0]
