"""The looks of `lab precision` and `lab accumulate` at a run: they leave it as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.lab.experiments.cost import look_at_cost, memory_of, speed_of
from minigpt.lab.experiments.loss_scale import FixedScaler, scale_by, without_scale
from minigpt.lab.experiments.room import look_at_room
from minigpt.lab.experiments.splits import look_at_splits
from minigpt.lab.experiments.underflow import look_at_underflow
from minigpt.lab.gradients import first_sequences, targets_in
from minigpt.training.loop import train
from minigpt.training.run import Run
from tests.training.tiny_run import Workshop, opened_run


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop.set_up(tmp_path)


def _nothing(run: Run) -> None:
    """No look."""


@pytest.mark.parametrize("look", [look_at_underflow, look_at_splits])
def test_look_before_the_first_step_changes_no_step(
    workshop: Workshop, tmp_path: Path, look: Callable[[Run], Any]
) -> None:
    config = workshop.config("training.max_steps=3", "model.dropout=0.1")
    ends = []
    for name, act in (("looked", look), ("not", _nothing)):
        with opened_run(config, tmp_path / name) as run:
            act(run)
            assert all(parameter.grad is None for parameter in run.model.parameters())
            train(run)
            ends.append({key: value.clone() for key, value in run.model.state_dict().items()})
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.parametrize("look", [look_at_cost, look_at_room])
def test_look_after_the_last_step_leaves_weights_precision_and_scaler(
    workshop: Workshop, tmp_path: Path, look: Callable[[Run], Any]
) -> None:
    with opened_run(workshop.config("training.mixed_precision=bf16"), tmp_path / "run") as run:
        before = {key: value.clone() for key, value in run.model.state_dict().items()}
        precision, scaler = run.precision, run.scaler
        found = look(run)
        assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
        assert (run.precision, run.scaler) == (precision, scaler)
        assert found["device"] == "cpu"
        if look is look_at_cost:
            assert memory_of(found, "saved") < memory_of(found, "held") < 1
            assert speed_of(found) == found["seconds"]["fp32"] / found["seconds"]["own"]


def test_first_sequences_are_those_of_the_first_steps(workshop: Workshop, tmp_path: Path) -> None:
    with opened_run(workshop.config(), tmp_path / "run") as run:
        windows = len(run.loader.windows)
        steps = [run.loader.step_at(position) for position in range(0, windows, 8)]
        batches = [batch for step in steps for batch in step.micro_batches]
        order = [index for batch in batches for index in batch.window_indices]

        inputs, targets = first_sequences(run, windows)

        # In the order of the steps, but for the last window of the text, which is not whole.
        assert run.loader.windows.targets_in(windows - 1) < 16
        assert targets_in((inputs, targets)) == windows * 16
        whole = [index for index in order if index != windows - 1]
        expected = torch.stack([run.loader.windows.get(index)[0] for index in whole[: windows - 1]])
        assert torch.equal(inputs[: windows - 1], expected)


def test_scale_by_replaces_the_scaler(workshop: Workshop, tmp_path: Path) -> None:
    with opened_run(workshop.config("training.mixed_precision=fp16"), tmp_path / "run") as run:
        scale_by(run, 1024.0)
        assert isinstance(run.scaler, FixedScaler)
        run.config = run.config.model_copy(update={"max_steps": 2})
        train(run)
        assert run.scaler.get_scale() == 1024
        without_scale(run)
        assert not run.scaler.is_enabled()
