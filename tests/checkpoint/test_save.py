from pathlib import Path
from typing import IO

import pytest
import torch

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.files import checkpoints_by_step, steps_to_delete
from minigpt.checkpoint.load import load_checkpoint
from minigpt.checkpoint.save import apply_retention, save_checkpoint
from minigpt.errors import CheckpointError


def state(value: float) -> dict[str, object]:
    return {"model_state_dict": {"w": torch.full((4,), value)}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_opens_with_torchs_safe_default_when_saved(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 7, state(2.0))
    assert path == tmp_path / "checkpoint_step_7.pt"
    assert [p.norm().item() for p in torch.load(path)["model_state_dict"].values()] == [4.0]
    assert names(tmp_path) == ["checkpoint_step_7.pt"]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0\nmore")]
)
def test_failed_save_keeps_the_old_one_and_leaves_nothing_else_when_the_disk_refuses(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, state(1.0))

    def half_written(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", half_written)
    for step in (1, 2):
        with pytest.raises(CheckpointError, match=r"cannot write .*; free space or .* --run-dir") as caught:
            save_checkpoint(tmp_path, step, state(2.0))
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["checkpoint_step_1.pt"]
    assert load_checkpoint(tmp_path / "checkpoint_step_1.pt")["model_state_dict"]["w"].tolist() == [1.0] * 4


def test_old_checkpoint_stays_whole_when_renaming_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, state(1.0))

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(CheckpointError, match="Permission denied"):
            save_checkpoint(tmp_path, 1, state(2.0))
    assert names(tmp_path) == ["checkpoint_step_1.pt"]
    assert load_checkpoint(tmp_path / "checkpoint_step_1.pt")["model_state_dict"]["w"].tolist() == [1.0] * 4


def test_save_refuses_in_one_line_when_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "run", 1, state(1.0))


@pytest.mark.parametrize(
    ("settings", "protected", "gone"),
    [
        ({"keep_last": 2}, set(), [0, 10, 20, 30]),
        ({"keep_last": 1}, {20}, [0, 10, 30, 40]),
        ({"keep_last": 2, "keep_every_steps": 20}, set(), [10, 30]),
        ({"keep_last": 9}, set(), []),
    ],
)
def test_retention_keeps_the_last_the_grid_and_the_protected(
    settings: dict[str, int], protected: set[int], gone: list[int], tmp_path: Path
) -> None:
    steps = [0, 10, 20, 30, 40, 50]
    config = CheckpointConfig.model_validate(settings)
    assert steps_to_delete(steps, config, protected) == gone
    for step in steps:
        save_checkpoint(tmp_path, step, state(0.0))
    (tmp_path / "checkpoint_step_5.pt.mine").write_bytes(b"the user's own")
    assert apply_retention(tmp_path, config, protected).deleted == gone
    assert list(checkpoints_by_step(tmp_path)) == [step for step in steps if step not in gone]
    assert (tmp_path / "checkpoint_step_5.pt.mine").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def kept_after(run_dir: Path, keep_last: int, protected: set[int]) -> list[int]:
    apply_retention(run_dir, CheckpointConfig(keep_last=keep_last), protected)
    return list(checkpoints_by_step(run_dir))


@pytest.mark.parametrize(
    ("damaged", "kept"),
    [
        ({50}, [30, 40, 50]),
        ({40}, [30, 40, 50]),
        ({40, 50}, [20, 30, 40, 50]),
        ({10, 20, 30, 40, 50}, [0, 10, 20, 30, 40, 50]),
        # Older than the ones that stay: gone as if it were good.
        ({10}, [40, 50]),
    ],
)
def test_damaged_checkpoint_is_not_counted_when_good_ones_would_go_for_it(
    damaged: set[int], kept: list[int], tmp_path: Path
) -> None:
    paths = {step: save_checkpoint(tmp_path, step, state(0.0)) for step in (0, 10, 20, 30, 40, 50)}
    for step in damaged:
        flip(paths[step])
    retention = apply_retention(tmp_path, CheckpointConfig(keep_last=2), set())
    assert list(checkpoints_by_step(tmp_path)) == kept
    counted = [step for step in kept if step in damaged]
    assert len(retention.damaged) == len(counted)
    for step, line in zip(reversed(counted), retention.damaged, strict=True):
        assert line.startswith(f"{paths[step]}: its content does not match its checksum; it does not count")
    # And it goes when enough good ones came after it.
    for step in (60, 70):
        save_checkpoint(tmp_path, step, state(0.0))
    assert kept_after(tmp_path, 2, set()) == [60, 70]


def test_copy_of_another_step_is_not_counted(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, step, state(0.0)) for step in (1, 2, 3)]
    paths[2].write_bytes(paths[0].read_bytes())
    assert kept_after(tmp_path, 1, set()) == [2, 3]


def test_folder_in_a_checkpoints_place_is_left_alone_and_not_counted(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state(0.0))
    for step in (0, 9):
        (tmp_path / f"checkpoint_step_{step}.pt").mkdir()
    assert kept_after(tmp_path, 1, set()) == [0, 2, 9]


def test_run_goes_on_with_a_line_when_an_old_checkpoint_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, state(0.0))
    unlink = Path.unlink

    def refuse_the_first(self: Path, missing_ok: bool = False) -> None:
        if self.name == "checkpoint_step_1.pt":
            raise PermissionError(1, "Operation not permitted")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_the_first)
    retention = apply_retention(tmp_path, CheckpointConfig(keep_last=1), set())
    assert retention.deleted == [2]
    assert retention.refused is not None
    assert retention.refused.endswith(
        "checkpoint_step_1.pt need not stay and cannot be deleted: Operation not permitted"
    )
