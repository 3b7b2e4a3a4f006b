"""A damaged checkpoint in a run's folder: the run goes on from the newest good one and says so, losing nothing."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.digest import write_sealed
from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_newest
from minigpt.errors import CheckpointError
from minigpt.generation.load import load_model
from minigpt.lab.damage import unseen_cuts
from minigpt.training.bundle import read_bundle
from minigpt.training.loop import train
from minigpt.training.pretrain import pretrain
from tests.training.tiny_run import Workshop, assert_same_run, before_step, opened_run, read_lines


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run, to be damaged; logs/ lands beside it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def put_another_step(path: Path) -> None:
    shutil.copy(path.with_name("checkpoint_step_5.pt"), path)


@pytest.mark.parametrize(
    ("damage", "resume"),
    [
        (flip, "auto"),
        (flip, "healthy"),
        (put_folder, "folder"),
        (put_fifo, "auto"),
        (put_dangling_link, "auto"),
        (put_another_step, "healthy"),
    ],
)
def test_resume_goes_on_from_the_newest_good_one_and_saves_the_damaged_ones_step_again(
    damage: Callable[[Path], None],
    resume: str,
    finished: Path,
    run_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run_dir / "checkpoint_step_12.pt")

    place = (None, str(run_dir)) if resume == "folder" else (run_dir, resume)
    assert pretrain(None, (), *place) == 0

    printed = capsys.readouterr().out
    assert printed.count("warning: skipped a damaged checkpoint: ") == 1
    assert f"Resumed from {run_dir / 'checkpoint_step_10.pt'}" in printed
    assert_same_run(finished, run_dir, 12)
    # The damaged one is where it harms nobody.
    (aside,) = run_dir.glob("after_step_10_until_*")
    assert os.path.lexists(aside / "checkpoint_step_12.pt")


def test_damaged_checkpoint_that_was_asked_for_is_refused_with_the_one_to_use(run_dir: Path) -> None:
    newest = run_dir / "checkpoint_step_12.pt"
    for damage in (flip, put_fifo, put_dangling_link, put_folder):
        damage(newest)
        for given in (
            lambda: pretrain(None, (), None, str(newest)),
            lambda: load_model(newest, torch.device("cpu")),
        ):
            with pytest.raises(CheckpointError, match=r"checkpoint_step_12\.pt is damaged: ") as caught:
                given()
            assert str(caught.value).endswith(f"the newest good one is {run_dir / 'checkpoint_step_10.pt'}")


def test_model_of_the_newest_good_one_is_used_when_the_newest_is_damaged(run_dir: Path) -> None:
    flip(run_dir / "checkpoint_step_12.pt")
    loaded = load_model(run_dir, torch.device("cpu"))
    assert loaded.step == 10
    assert loaded.damaged == [f"{run_dir / 'checkpoint_step_12.pt'}: its content does not match its checksum"]


def test_bundle_is_refused_when_it_is_damaged_anywhere(run_dir: Path) -> None:
    path = run_dir / "crash_step_3.pt"
    write_sealed(path, {"kind": "minigpt crash bundle", "format": 1})
    with pytest.raises(CheckpointError, match="not a whole crash bundle"):
        read_bundle(path)
    size = path.stat().st_size
    assert unseen_cuts(path, read_bundle, range(0, size, 7)) == []
    flip(path)
    with pytest.raises(CheckpointError, match=r"crash_step_3\.pt is damaged: its content does not match"):
        read_bundle(path)
    put_fifo(path)
    with pytest.raises(CheckpointError, match="it is a FIFO"):
        read_bundle(path)


def test_good_checkpoints_stay_when_a_newer_one_is_damaged_while_the_run_goes_on(
    workshop: Workshop, tmp_path: Path
) -> None:
    """keep_last=2 alone would leave one good checkpoint, and after the next damage none."""
    folder = tmp_path / "watched"
    settings = ("checkpoint.keep_last=2", "checkpoint.keep_best=false", "training.eval_every_steps=12")
    with opened_run(workshop.config(*settings, "monitor.enabled=false"), folder) as run:
        before_step(run, 10, lambda: flip(folder / "checkpoint_step_8.pt"))
        assert train(run) == "finished"
    good = [4, 12]
    assert list(checkpoints_by_step(folder)) == sorted([*good, 8])
    (told,) = [event["text"] for event in read_lines(folder / "events.jsonl") if event["name"] == "retention"]
    assert "checkpoint_step_8.pt: its content does not match its checksum; it does not count" in told
    flip(folder / "checkpoint_step_12.pt")
    assert load_newest(folder).state["step"] == 4
