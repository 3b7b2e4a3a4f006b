import pickle
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.load import find_checkpoint, load_checkpoint, load_newest
from minigpt.checkpoint.save import save_checkpoint
from minigpt.errors import CheckpointError


def saved(run_dir: Path, *steps: int) -> list[Path]:
    return [
        save_checkpoint(run_dir, step, {"model_state_dict": {"w": torch.full((1000,), float(step))}})
        for step in steps
    ]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    where = content.find(torch.full((4,), float(20)).numpy().tobytes())
    assert where > 0
    content[where + 100] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_another_thing(path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, path)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit_of_a_weight, empty, fill_with_another_thing])
def test_newest_good_checkpoint_is_loaded_when_the_newest_is_damaged(damage: object, tmp_path: Path) -> None:
    paths = saved(tmp_path, 3, 20)
    assert callable(damage)
    damage(paths[1])
    loaded = load_newest(tmp_path)
    assert (loaded.path, loaded.state["step"]) == (paths[0], 3)
    assert len(loaded.damaged) == 1
    assert str(paths[1]) in loaded.damaged[0]
    assert "\n" not in loaded.damaged[0]


def test_newest_means_the_highest_step_when_names_sort_otherwise(tmp_path: Path) -> None:
    saved(tmp_path, 9, 100, 20)
    assert find_checkpoint(tmp_path).name == "checkpoint_step_100.pt"
    assert load_newest(tmp_path).state["step"] == 100


def test_other_files_are_no_checkpoints_when_their_names_are_alike(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for name in ("checkpoint_step_x.pt", "checkpoint_step_7.pt.bak", ".checkpoint_step_8.pt.tmp", "best.pt"):
        (tmp_path / name).write_bytes(b"?")
    assert load_newest(tmp_path).state["step"] == 1


def test_load_refuses_in_one_line_when_all_are_damaged_or_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="start without --resume"):
        load_newest(tmp_path)
    with pytest.raises(CheckpointError, match="neither a checkpoint file nor a run folder"):
        find_checkpoint(tmp_path / "nowhere")
    for path in saved(tmp_path, 1, 2):
        truncate(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read") as caught:
        load_newest(tmp_path)
    assert "\n" not in str(caught.value)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a stranger ran",)


def test_nothing_is_executed_when_the_file_holds_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "checkpoint_step_1.pt"
    torch.save({"model_state_dict": {}, "step": 1, "extra": Malicious()}, path)
    with pytest.raises(CheckpointError, match="more than plain data and tensors"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert "stranger" not in capsys.readouterr().out
