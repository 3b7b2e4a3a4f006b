"""What the torture judges with: the comparer on folders that were tampered with, and the disk that forgets."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from minigpt.lab.same_values import first_difference
from minigpt.lab.torture.compare import difference
from minigpt.lab.torture.file_calls import FileCall
from minigpt.lab.torture.power import Disk
from tests.training.tiny_run import Workshop

STEPS = 6


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torture")
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)  # logs/ lands here
    torch.set_num_threads(1)
    try:
        code = Workshop.set_up(folder).train(folder / "run", f"training.max_steps={STEPS}")
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    assert code == 0
    return folder / "run"


@pytest.fixture
def other(straight: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(straight, tmp_path / "other"))


def found(straight: Path, other: Path) -> str | None:
    return difference(straight, other, STEPS, same_checkpoints=True)


def last_line_twice(run_dir: Path) -> None:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))


def one_record_less(run_dir: Path) -> None:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))


def one_bit_of_a_moment(run_dir: Path) -> None:
    path = run_dir / f"checkpoint_step_{STEPS}.pt"
    state = torch.load(path)
    moment = state["optimizer_state_dicts"][0]["state"][0]["exp_avg"]
    moment.view(-1).view(torch.int32)[5] ^= 1
    torch.save(state, path)


def evaluation_told_twice(run_dir: Path) -> None:
    path = run_dir / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    again = [line for line in lines if json.loads(line)["kind"] == "evaluation"]
    path.write_text("".join([*lines, again[-1]]))


def point_drawn_twice(run_dir: Path) -> None:
    with SummaryWriter(str(run_dir / "monitor_logs"), filename_suffix=".later") as writer:
        writer.add_scalar("train/loss", 1.0, STEPS)


def checkpoint_too_many(run_dir: Path) -> None:
    shutil.copy(run_dir / f"checkpoint_step_{STEPS}.pt", run_dir / "checkpoint_step_1.pt")


def half_file(run_dir: Path) -> None:
    (run_dir / ".metrics.jsonl.123.tmp").write_text("{")


def test_folder_is_the_same_as_its_copy(straight: Path, other: Path) -> None:
    assert found(straight, other) is None


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (last_line_twice, "metrics.jsonl: 6 entries and 7"),
        (one_record_less, "metrics.jsonl 2 step: 3 and 4"),
        (one_bit_of_a_moment, f"checkpoint_step_{STEPS}.pt optimizer_state_dicts 0 state 0 exp_avg: 1 of "),
        (evaluation_told_twice, "events.jsonl: "),
        (point_drawn_twice, "TensorBoard ./train/loss"),
        (checkpoint_too_many, "checkpoints kept: [4, 5, 6], [1, 4, 5, 6]"),
        (half_file, "left behind: .metrics.jsonl.123.tmp"),
    ],
)
def test_first_difference_is_named_when_a_folder_was_tampered_with(
    tamper: Callable[[Path], None], named: str, straight: Path, other: Path
) -> None:
    tamper(other)
    told = found(straight, other)
    assert told is not None
    assert named in told


def test_gap_is_named_when_both_runs_have_it(straight: Path, other: Path, tmp_path: Path) -> None:
    one_record_less(other)
    third = Path(shutil.copytree(other, tmp_path / "third"))
    assert (found(other, third) or "").startswith("metrics.jsonl has the steps [1, 2, 4, 5, 6]")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.0]}, None),
        ([float("nan")], [float("nan")], None),
        ([0.0], [-0.0], "x 0: 0.0 and -0.0"),
        ({"a": 1}, {"b": 1}, "x a: only in the first"),
        ([1], [True], "x 0: 1 and True"),
        ([1, 2], [1], "x: 2 entries and 1"),
        (torch.tensor(0.0), torch.tensor(-0.0), "x: 1 of 1 numbers differ, at most by 0"),
        (
            torch.ones(2),
            torch.ones(2, dtype=torch.float64),
            "x: torch.float32 (2,) and torch.float64 (2,)",
        ),
        (
            torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
            torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
            None,
        ),
    ],
)
def test_values_are_compared_bit_by_bit(first: object, second: object, told: str | None) -> None:
    assert first_difference(first, second, "x") == told


def call(name: str, path: Path, target: Path | None = None) -> FileCall:
    return FileCall(name, path, target, 0, ())


def test_unforced_bytes_are_gone_when_power_is_lost(tmp_path: Path) -> None:
    disk, file = Disk(tmp_path), tmp_path / "file"
    file.write_bytes(b"old")
    disk.see(call("write", file))
    file.write_bytes(b"old, forced")
    disk.see(call("fsync", file))
    disk.see(call("write", file))
    file.write_bytes(b"old, forced, not forced")
    disk.lose_power()
    assert file.read_bytes() == b"old, forced"


@pytest.mark.parametrize("forced", [True, False])
def test_renamed_file_has_its_old_name_when_power_is_lost_before_the_folder_is_forced(
    forced: bool, tmp_path: Path
) -> None:
    disk, new, old = Disk(tmp_path), tmp_path / ".new", tmp_path / "file"
    old.write_bytes(b"old")
    disk.see(call("openat", new))
    new.write_bytes(b"new")
    disk.see(call("fsync", new))
    disk.see(call("rename", new, old))
    new.rename(old)
    if forced:
        disk.see(call("fsync", tmp_path))
    assert not disk.is_relied_upon(old)
    disk.see(call("write", tmp_path / "metrics.jsonl"))
    assert disk.is_relied_upon(old)
    disk.lose_power()
    assert old.read_bytes() == (b"new" if forced else b"old")
