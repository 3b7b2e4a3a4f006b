"""Ctrl-C and SIGTERM: the step is finished, the state saved, and the user told how to go on."""

import signal
import time
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.training.interrupt import Interrupt, Interrupted, caught_signals
from tests.training.tiny_run import Process, Workshop, metrics_of


def trained_some(process: Process, run_dir: Path) -> None:
    """Returns when the process has trained ten steps."""
    metrics, deadline = run_dir / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 10):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, "nothing was trained"
        time.sleep(0.002)


def test_run_saves_and_says_how_to_go_on_when_told_to_stop(workshop: Workshop, tmp_path: Path) -> None:
    endless = ("training.max_steps=1000000", "checkpoint.every_steps=1000000")
    numbers = (signal.SIGINT, signal.SIGTERM)
    runs = [(number, tmp_path / number.name) for number in numbers]
    processes = [workshop.start(run_dir, *endless) for _, run_dir in runs]
    for (number, run_dir), process in zip(runs, processes, strict=True):
        with process:
            trained_some(process, run_dir)
            process.send_signal(number)
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number, printed
        step = max(checkpoints_by_step(run_dir))
        assert step >= 10
        # Whatever was recorded is in the checkpoint, and the other way round.
        assert [record["step"] for record in metrics_of(run_dir)] == list(range(1, step + 1))
        assert torch.load(run_dir / f"checkpoint_step_{step}.pt")["position"]["step"] == step
        assert f"Interrupted after step {step}, saved in {run_dir}" in printed
        assert f"python -m minigpt train --resume {run_dir}" in printed
        assert "Traceback" not in printed


def test_second_signal_leaves_at_once() -> None:
    with caught_signals() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt
        assert interrupt.exit_code == 143
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_are_put_back_when_the_block_ends() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with caught_signals() as interrupt:
        assert not interrupt
        assert interrupt.exit_code == 0
        signal.raise_signal(signal.SIGINT)
    assert interrupt.exit_code == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_signal_breaks_off_at_once_where_nothing_is_half_done() -> None:
    with caught_signals() as interrupt:
        with pytest.raises(Interrupted), interrupt.at_once():
            signal.raise_signal(signal.SIGINT)
        # And later blocks of the kind are not even begun.
        with pytest.raises(Interrupted), interrupt.at_once():
            raise AssertionError("begun all the same")


def test_flag_alone_is_set_when_the_signal_comes_outside_such_a_block() -> None:
    with caught_signals() as interrupt:
        with interrupt.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
        assert interrupt.signal is signal.SIGINT


def test_preparing_is_interrupted_without_a_trace(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = Interrupt.at_once

    def interrupted_soon(self: Interrupt) -> object:
        signal.raise_signal(signal.SIGINT)
        return began(self)

    monkeypatch.setattr(Interrupt, "at_once", interrupted_soon)
    assert workshop.train(tmp_path / "run") == 130
    assert "Interrupted while preparing the corpus; nothing was lost" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_closed_terminal_stops_a_run_unless_nohup_says_otherwise() -> None:
    # The tests themselves may run under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with caught_signals() as interrupt:
            signal.raise_signal(signal.SIGHUP)
        assert interrupt.exit_code == 129
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with caught_signals() as interrupt:
            signal.raise_signal(signal.SIGHUP)
        assert not interrupt
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_is_answered_at_once_when_the_step_has_yet_to_finish(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caught_signals() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt
    assert "stopping: the step is finished and saved first" in capfd.readouterr().err
