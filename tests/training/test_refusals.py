"""A disk that refuses a run in this process: when it is tried again, what is said, and what stays."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_newest
from minigpt.checkpoint.save import save_checkpoint
from minigpt.errors import CheckpointError, NotWrittenError
from minigpt.training.ending import ended
from minigpt.training.forensics import Forensics, _Began
from minigpt.training.loop import train
from minigpt.training.refusals import Refusals, Unsaved, error_number, newest_whole, way_out
from minigpt.training.save import save, save_first
from minigpt.training_monitor.signals import StepSignals
from tests.training.tiny_run import Workshop, before_step, metrics_of, opened_run, read_lines

GO_ON = "checkpoint.on_write_error=go_on"


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], list[int]]:
    """Lets no checkpoint of the given steps be written; gives the steps that were tried."""

    def choose(steps: set[int]) -> list[int]:
        tried: list[int] = []

        def write(run_dir: Path, step: int, state: dict[str, Any]) -> Path:
            tried.append(step)
            if step in steps:
                error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
                raise NotWrittenError("cannot", "Disk quota exceeded") from error
            return save_checkpoint(run_dir, step, state)

        monkeypatch.setattr("minigpt.training.save.save_checkpoint", write)
        return tried

    return choose


def test_tries_come_after_a_growing_number_of_steps_and_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    refusals, error, tried = Refusals(), NotWrittenError("", "full"), []
    for step in range(1, 40):
        if refusals.unsaved is None or refusals.unsaved.is_due(step):
            refusals.note(step, error)
            tried.append(step)
    assert tried == [1, 2, 4, 8, 16, 32]
    # A step may take an hour.
    unsaved = Unsaved(1, "full", "", tries=3, tried_step=32, tried_at=0.0)
    now[0] = 4 * 60 - 1
    assert not unsaved.is_due(33)
    now[0] = 4 * 60
    assert unsaved.is_due(33)
    assert Unsaved(1, "full", "", tries=500, tried_step=32, tried_at=now[0] - 15 * 60).is_due(33)


def test_refusal_is_news_once_and_again_when_the_reason_is_another() -> None:
    refusals = Refusals()
    assert refusals.note(4, NotWrittenError("", "full"))
    assert not refusals.note(5, NotWrittenError("", "full"))
    assert refusals.note(7, NotWrittenError("", "read-only"))
    assert refusals.unsaved is not None
    assert (refusals.unsaved.step, refusals.unsaved.tries) == (4, 3)


def test_run_ends_as_an_undisturbed_one_when_the_disk_refuses_for_a_while(
    workshop: Workshop, tmp_path: Path, refuse: Callable[[set[int]], list[int]], reads: bool | None
) -> None:
    config = workshop.config(GO_ON, "checkpoint.keep_last=9", "model.dropout=0.1")
    states, tried = [], refuse(set())
    for name, refused in (("straight", set()), ("refused", set(range(4, 12)))):
        tried = refuse(refused)
        with opened_run(config, tmp_path / name) as run:
            assert train(run) == "finished"
            states.append(load_newest(tmp_path / name).state["model_state_dict"])
            assert ended(run, "finished", 1.0) == 0
    # Due after 4, 5 and 10 (best), 8 and 12; between them after 1, 2, 4 more steps.
    assert tried == [0, 4, 5, 7, 8, 10, 12]
    assert list(checkpoints_by_step(tmp_path / "refused")) == [0, 12]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert metrics_of(tmp_path / "straight") == metrics_of(tmp_path / "refused")
    events = read_lines(tmp_path / "refused" / "events.jsonl")
    assert [event["step"] for event in events if event["name"] == "checkpoint_refused"] == [4]
    assert [event["step"] for event in events if event["name"] == "checkpoint_written"] == [12]
    # Of what was tried again in vain, the records do not say that it was saved.
    assert [event["step"] for event in events if event["kind"] == "save"] == [0, 4, 12]


def test_run_stops_at_the_step_when_told_to(
    workshop: Workshop, run_dir: Path, refuse: Callable[[set[int]], list[int]]
) -> None:
    refuse({4})
    with opened_run(workshop.config(), run_dir) as run:
        with pytest.raises(CheckpointError) as caught:
            train(run)
        assert run.position.step == 4
    line = str(caught.value)
    assert re.fullmatch(
        r"cannot write \S+checkpoint_step_4\.pt: Disk quota exceeded \([\d.]+ GiB left, the last checkpoint took "
        r"\d+ kB\); the newest whole checkpoint is \S+checkpoint_step_0\.pt; make room in your quota, then go on with: "
        r"python -m minigpt train --resume \S+",
        line,
    ), line


def test_first_checkpoint_has_to_be_written_either_way(
    workshop: Workshop, run_dir: Path, refuse: Callable[[set[int]], list[int]]
) -> None:
    with opened_run(workshop.config(GO_ON), run_dir) as run:
        refuse({0})
        with pytest.raises(CheckpointError, match="Disk quota exceeded"):
            save_first(run)


def test_last_refusal_ends_a_finished_run_with_the_way_out(
    workshop: Workshop, run_dir: Path, refuse: Callable[[set[int]], list[int]]
) -> None:
    refuse({12})
    with opened_run(workshop.config(GO_ON), run_dir) as run:
        assert train(run) == "finished"
        with pytest.raises(
            CheckpointError, match=r"all 12 steps are done, and NOT saved: .* repeats 2 steps: first"
        ):
            ended(run, "finished", 1.0)


def test_best_checkpoint_stays_until_a_better_one_is_written(
    workshop: Workshop, run_dir: Path, refuse: Callable[[set[int]], list[int]]
) -> None:
    """Best so far at 5, refused at 10 (better) and written after 11: retention knows that 10 is not there."""
    refuse({10})
    with opened_run(
        workshop.config(GO_ON, "checkpoint.keep_last=1", "training.max_steps=11", "monitor.enabled=false"),
        run_dir,
    ) as run:
        before_step(run, 11, lambda: setattr(run.position, "best_step", 10))
        train(run)
        assert run.refusals.best_saved in checkpoints_by_step(run_dir)


def test_checkpoints_that_cannot_be_deleted_are_said_once_and_deleted_later(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unlink = Path.unlink

    def read_only(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".pt":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        unlink(path, missing_ok)

    config = workshop.config(
        "checkpoint.keep_last=1", "checkpoint.keep_best=false", "checkpoint.every_steps=1"
    )
    with opened_run(config, run_dir) as run:
        before_step(run, 4, lambda: monkeypatch.setattr(Path, "unlink", read_only))
        before_step(run, 9, lambda: monkeypatch.setattr(Path, "unlink", unlink))
        assert train(run) == "finished"
    printed = capsys.readouterr().out
    assert printed.count("cannot be deleted") == 1
    assert 5 not in checkpoints_by_step(run_dir)


def test_nothing_is_deleted_when_a_checkpoint_cannot_be_opened(
    workshop: Workshop, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the last healthy one, and cannot say so."""
    with opened_run(workshop.config("checkpoint.keep_last=1"), run_dir) as run:
        for step in (1, 2, 3):
            run.position.step = step
            own = os.open

            def no_more_files(path: Any, *rest: Any, **named: Any) -> int:
                if str(path).endswith("step_0.pt"):
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
                return own(path, *rest, **named)  # noqa: B023

            with monkeypatch.context() as patched:
                patched.setattr(os, "open", no_more_files)
                assert save(run, "regular")
    assert list(checkpoints_by_step(run_dir)) == [0, 1, 2, 3]


def test_newest_whole_passes_over_damaged_ones(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"model_state_dict": {}, "open_findings": {}})
    assert newest_whole(tmp_path) == tmp_path / "checkpoint_step_3.pt"
    (tmp_path / "checkpoint_step_3.pt").write_bytes(b"")
    content = bytearray((tmp_path / "checkpoint_step_2.pt").read_bytes())
    content[content.index(b"model_state_dict")] ^= 1
    (tmp_path / "checkpoint_step_2.pt").write_bytes(content)
    assert newest_whole(tmp_path) == tmp_path / "checkpoint_step_1.pt"
    assert newest_whole(tmp_path / "gone") is None


def test_way_out_is_found_behind_what_torch_makes_of_it() -> None:
    behind = RuntimeError("unexpected pos 704 vs 598")
    behind.__context__ = OSError(errno.EFBIG, "File too large")
    told = RuntimeError("open file failed because of errno 24 on fopen: Too many open files")
    assert (error_number(behind), error_number(told), error_number(KeyError())) == (errno.EFBIG, 24, None)
    assert "ulimit -n" in way_out(told)
    assert way_out(KeyError()) == "free space on its disk"


def test_crash_bundle_that_cannot_be_written_ends_no_run(workshop: Workshop, run_dir: Path) -> None:
    with opened_run(workshop.config(), run_dir) as run:
        began = _Began(1, run.loader.next_step(), {})
        forensics = Forensics(run)
        run.run_dir = run_dir / "gone"
        assert forensics._write(began, cast("StepSignals", None), "stop", None) is None
        assert not run.run_dir.exists()
