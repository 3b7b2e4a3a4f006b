"""Two folders hold the same run, or what differs is found and named."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.lab.same_run import Comparison, compare_runs
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink
from tests.training.tiny_run import Workshop, opened_run, read_lines

STEPS = 6
TINY = (
    f"training.max_steps={STEPS}",
    "training.eval_every_steps=4",
    "model.dropout=0.1",
    "model.num_layers=1",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 steps."""
    folder = tmp_path_factory.mktemp("straight")
    config = Workshop.set_up(folder).config(*TINY, "training.mixed_precision=fp16")
    from minigpt.training.loop import train

    with opened_run(config, folder / "run") as run:
        train(run)
    return folder / "run"


@pytest.fixture
def other(straight: Path, tmp_path: Path) -> Path:
    shutil.copytree(straight, tmp_path / "other")
    return tmp_path / "other"


def with_state(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / f"checkpoint_step_{STEPS}.pt"
    state = torch.load(path)
    change(state)
    torch.save(state, path)


def with_lines(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    lines = read_lines(path)
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def compared(straight: Path, other: Path) -> Comparison:
    return compare_runs(straight, other, STEPS)


def test_same_run_is_found_when_only_the_clock_differs(straight: Path, other: Path) -> None:
    def later(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line["seconds"] += 1.0

    with_lines(other / "metrics.jsonl", later)
    found = compared(straight, other)
    assert found.is_same
    assert (found.steps, found.evaluations, found.first_step) == (STEPS, 2, None)
    assert found.tensors > 20
    assert found.points > STEPS


def flip(tensor: torch.Tensor) -> None:
    """The last bit of its first number."""
    tensor.reshape(-1).view(torch.int32)[0] ^= 1


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda state: flip(state["model_state_dict"]["embedding.weight"]), "weights embedding"),
        (lambda state: flip(state["optimizer_state_dicts"][0]["state"][2]["exp_avg"]), "optimizer 0 state 2 exp_avg"),
        (lambda state: state["scaler_state_dict"].update(_growth_tracker=0), "scaler _growth_tracker"),
        (lambda state: state["rng"][0]["torch"].add_(1), "random state of rank 0 torch"),
        (lambda state: state["position"].update(window=1), "position window"),
        (lambda state: state["monitor"]["detectors"].clear(), "monitor detectors"),
        (lambda state: state.update(micro_batch_size=2), "micro_batch_size"),
    ],
)  # fmt: skip
def test_difference_is_named_when_one_part_of_the_state_was_changed(
    change: Callable[[dict[str, Any]], None], place: str, straight: Path, other: Path
) -> None:
    with_state(other, change)
    found = compared(straight, other)
    assert not found.is_same
    assert found.in_state[0].place.startswith(place)
    assert (found.in_records, found.first_step) == ((), None)


def test_zero_and_minus_zero_differ_and_nan_equals_itself(
    straight: Path, other: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight, tmp_path / "third")
    for folder, zero in ((tmp_path / "third", 0.0), (other, -0.0)):
        numbers = torch.tensor([torch.nan, zero])
        with_state(folder, partial(dict.update, probe={"a": numbers}))
    (difference,) = compared(tmp_path / "third", other).in_state
    assert (difference.place, difference.is_tensor) == ("probe a", True)
    with_state(other, partial(dict.update, probe={"a": torch.tensor([torch.nan, 0.0])}))
    assert compared(tmp_path / "third", other).is_same


def test_first_step_is_named_when_records_differ(straight: Path, other: Path) -> None:
    def change(lines: list[dict[str, Any]]) -> None:
        lines[3]["group_norms"]["embedding"] += 1e-16 + lines[3]["group_norms"]["embedding"] * 1e-15
        lines[4]["loss"] = "NaN"

    with_lines(other / "metrics.jsonl", change)
    found = compared(straight, other)
    assert found.first_step == 4
    assert [difference.place for difference in found.in_records] == [
        "step 4 group_norms embedding",
        "step 5 loss",
    ]


@pytest.mark.parametrize("change", [lambda lines: lines.pop(2), lambda lines: lines.append(lines[-1])])
def test_gap_or_double_is_found_when_both_runs_have_it(
    change: Callable[[list[dict[str, Any]]], None], straight: Path, other: Path, tmp_path: Path
) -> None:
    """Equal to each other is not enough: every step has to be there once."""
    with_lines(other / "metrics.jsonl", change)
    shutil.copytree(other, tmp_path / "twin")
    found = compared(other, tmp_path / "twin")
    assert "not 1 to 6 once each" in str(found.in_records[0])


def test_curve_or_evaluation_that_differs_is_named(straight: Path, other: Path) -> None:
    sink = TensorBoardSink(other / "monitor_logs", keep_through=STEPS)
    sink.scalars(STEPS, {"grad_check/ok_params": 1.0})
    sink.close()
    with_lines(
        other / "events.jsonl",
        lambda lines: lines.append(dict(lines[-1], kind="evaluation", step=6, data={})),
    )
    places = [difference.place for difference in compared(straight, other).in_records]
    assert places == ["evaluation after step 6", "TensorBoard grad_check/ok_params"]
