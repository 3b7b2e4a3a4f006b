"""What a run's records go through: jumping clocks, full disks, closed terminals; and what a checkpoint says of them."""

import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import CheckpointError
from minigpt.training import pretrain as pretrain_module
from minigpt.training.build import build_run
from minigpt.training.loop import train
from minigpt.training.progress import Progress
from minigpt.training.run import Run
from minigpt.training_monitor.signals import StepSignals
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    before_step,
    curves_of,
    interrupt_at,
    metrics_of,
    opened_run,
    read_lines,
)

YEARS = 10 * 365 * 86_400.0


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop.set_up(tmp_path)


def test_checkpoint_vouches_for_the_first_bytes_of_the_records(workshop: Workshop) -> None:
    run_dir = workshop.folder / "run"
    assert workshop.train(run_dir) == 0
    for step in (4, 8, 10, 12):
        path = run_dir / f"checkpoint_step_{step}.pt"
        if not path.exists():
            continue
        for name, said in torch.load(path)["records"].items():
            content = (run_dir / name).read_bytes()[: said["bytes"]]
            assert len(content) == said["bytes"]
            assert hashlib.sha256(content).hexdigest() == said["sha256"]
            if name == "metrics.jsonl":
                assert content.count(b"\n") == step


def test_resume_leaves_the_bytes_before_it_alone(workshop: Workshop) -> None:
    run_dir = workshop.folder / "run"
    assert workshop.train(run_dir, "training.max_steps=8") == 0
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert workshop.train(run_dir, "training.max_steps=12", resume="auto") == 0
    assert (run_dir / "metrics.jsonl").read_bytes()[: len(before)] == before
    (resumed,) = [event for event in read_lines(run_dir / "events.jsonl") if event["kind"] == "resume"]
    assert "vouches" not in resumed["text"]


def test_resume_says_so_when_the_record_is_another(workshop: Workshop) -> None:
    run_dir = workshop.folder / "run"
    assert workshop.train(run_dir, "training.max_steps=8") == 0
    path = run_dir / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"loss": 5', b'"loss": 4', 1))
    assert workshop.train(run_dir, "training.max_steps=12", resume="auto") == 0
    (resumed,) = [event for event in read_lines(run_dir / "events.jsonl") if event["kind"] == "resume"]
    assert "metrics.jsonl is not what the checkpoint vouches for" in resumed["text"]


def test_run_is_the_same_while_the_clock_jumps_by_years_and_it_is_resumed_twice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, jumpy = workshop.folder / "straight", workshop.folder / "jumpy"
    assert workshop.train(straight, "checkpoint.every_minutes=5.0") == 0
    own = time.time
    shift = [0.0]
    monkeypatch.setattr("time.time", lambda: own() + shift[0])
    for begin, jump, stop in ((0.0, YEARS, 3), (2 * YEARS, -YEARS, 7), (-YEARS, 0.0, None)):
        shift[0] = begin

        def built(*arguments: Any, jump: float = jump, stop: int | None = stop) -> Run:
            run = build_run(*arguments)
            before_step(run, run.position.step + 2, lambda: shift.__setitem__(0, jump))
            if stop is not None:
                interrupt_at(run, stop)
            return run

        monkeypatch.setattr(pretrain_module, "build_run", built)
        resume = None if begin == 0.0 else "auto"
        code = workshop.train(jumpy, "checkpoint.every_minutes=5.0", resume=resume)
        assert code == (130 if stop else 0)
    assert_same_run(straight, jumpy, 12)
    assert len(list((jumpy / "monitor_logs").glob("events*"))) == 3


def test_training_goes_on_when_the_disk_of_tensorboard_is_gone_and_comes_back(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = workshop.folder / "run"
    with opened_run(workshop.config(), run_dir) as run:
        logs, away = run_dir / "monitor_logs", run_dir / ".away"

        def break_it() -> None:
            logs.rename(away)
            logs.write_text("not a folder")

        def mend_it() -> None:
            logs.unlink()
            away.rename(logs)

        before_step(run, 6, break_it)
        before_step(run, 11, mend_it)
        assert train(run) == "finished"
    told = [event["name"] for event in read_lines(run_dir / "events.jsonl") if event["kind"] == "note"]
    assert told == ["record_failing", "record_works_again"]
    assert capsys.readouterr().out.count("cannot be written") == 1
    assert [step for step, _ in curves_of(run_dir)["train/loss"]] == list(range(1, 13))


def test_save_fails_in_one_line_when_the_disk_of_the_records_is_full(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = workshop.folder / "run"
    with opened_run(workshop.config(), run_dir) as run:
        own = os.fsync

        def full(descriptor: int) -> None:
            if os.path.samestat(os.fstat(descriptor), (run_dir / "metrics.jsonl").stat()):
                raise OSError(errno.ENOSPC, "No space left on device")
            own(descriptor)

        before_step(run, 6, lambda: monkeypatch.setattr("os.fsync", full))
        with pytest.raises(CheckpointError, match=r"cannot write .*: No space left") as refused:
            train(run)
        assert "\n" not in str(refused.value)
        monkeypatch.setattr("os.fsync", own)
    assert not (run_dir / "checkpoint_step_8.pt").exists()
    assert [record["step"] for record in metrics_of(run_dir)] == list(range(1, 9))


@pytest.fixture
def stdout() -> Iterator[None]:
    own = sys.stdout
    yield
    sys.stdout = own


def progress() -> Progress:
    return Progress(10, "cpu", is_main=True, smaller_preset=None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.usefixtures("stdout")
def test_terminal_that_is_a_full_disk_stops_nothing_and_is_tried_again() -> None:
    told: Any = progress()
    sys.stdout = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    for _ in range(2):
        told.trouble = None
        told.say("hello")
        assert told.trouble is not None
        assert told.trouble.errno == errno.ENOSPC
    told.close()
    sys.stdout.flush()  # goes nowhere by now: no exit code 120
    sys.stdout.close()


@pytest.mark.usefixtures("stdout")
def test_pipe_that_nobody_reads_any_more_is_silent() -> None:
    read, write = os.pipe()
    os.close(read)
    told = progress()
    sys.stdout = os.fdopen(write, "w")
    told.say("hello")
    told.say("again")
    assert isinstance(told.trouble, BrokenPipeError)
    told.step(StepSignals(1, 1.0, 1.0))
    told.close()
    sys.stdout.close()


@pytest.mark.usefixtures("stdout")
def test_closed_stdout_is_silent() -> None:
    told = progress()
    sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stdout.close()
    told.say("hello")
    told.close()
