"""The torture itself: a sample of it loses nothing, and what would lose something is found out."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.checkpoint.files import FORMAT
from minigpt.lab.torture_disk.faulty_disk import FaultyDisk, installed
from minigpt.lab.torture_disk.scenes import SCENES
from minigpt.lab.torture_disk.sweep import Case, cases, try_cases
from minigpt.lab.torture_disk.table import losses, table

NEW, PREPARING, RESUME, OLDER, OVER = SCENES


def test_call_is_refused_with_half_of_its_bytes_on_disk(tmp_path: Path) -> None:
    disk = FaultyDisk(tmp_path, errno.ENOSPC, fails_at=1)

    def write() -> None:
        with (tmp_path / "a").open("wb", buffering=0) as file:
            file.write(b"1234")

    with installed(disk), pytest.raises(OSError, match="No space left"):
        write()
    assert disk.calls == [("create", "a"), ("write", "a")]
    assert (tmp_path / "a").read_bytes() == b"12"
    write()
    assert (tmp_path / "a").read_bytes() == b"1234"


@pytest.mark.parametrize(
    ("scene", "error", "every", "first"),
    [(NEW, errno.ENOSPC, 140, 40), (NEW, errno.EROFS, 41, 20), (OVER, errno.EIO, 307, 70)],
    ids=lambda value: getattr(value, "name", None),
)
def test_nothing_is_lost_when_a_call_is_refused(scene: Any, error: int, every: int, first: int) -> None:
    found = list(try_cases(list(cases(scene, errors=[error], every=every, first=first))))
    assert len(found) >= 3
    assert losses(found) == []
    assert table(found).splitlines()[-1].endswith("| nothing |")


def test_checkpoint_written_in_place_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(run_dir: Path, step: int, state: dict[str, Any]) -> None:
        with (run_dir / f"checkpoint_step_{step}.pt").open("wb") as file:
            torch.save({"format": FORMAT, "step": step, **state}, file)

    monkeypatch.setattr("minigpt.training.save.save_checkpoint", in_place)
    found = try_cases([Case(NEW.name, errno.EFBIG, call, forever=False, policy="stop") for call in (4, 5)])
    assert any("half a checkpoint" in line for verdict in found for line in verdict.lost)
