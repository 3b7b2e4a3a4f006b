"""Ctrl-C at any point of the loop, in one process: what the resumed run ends with is the straight run's."""

import signal
from pathlib import Path

import pytest

from minigpt.checkpoint.load import load_newest
from minigpt.config.run_config import RunConfig
from minigpt.training.loop import Outcome, train
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    curves_of,
    evaluated_steps,
    interrupt_at,
    opened_run,
)

pytestmark = pytest.mark.usefixtures("reads")

MID_STEP, MID_EVALUATION, LAST_STEP = 6, 5, 12


def started(config: RunConfig, run_dir: Path, interrupted_at: int | None = None) -> Outcome:
    with opened_run(config, run_dir) as run:
        if interrupted_at is not None:
            interrupt_at(run, interrupted_at)
        return train(run)


def resumed(config: RunConfig, run_dir: Path, *, interrupted_at_once: bool = False) -> Outcome:
    with opened_run(config, run_dir, load_newest(run_dir).state) as run:
        if interrupted_at_once:
            run.interrupt.signal = signal.SIGINT
        return train(run)


@pytest.mark.parametrize(
    ("step", "optimizer"), [(MID_STEP, "muon"), (MID_EVALUATION, "adamw"), (LAST_STEP, "adamw")]
)
def test_resumed_run_equals_the_straight_one_when_interrupted(
    step: int, optimizer: str, workshop: Workshop, tmp_path: Path
) -> None:
    config = workshop.config("model.dropout=0.1", f"optimizer.name={optimizer}")
    assert started(config, tmp_path / "straight") == "finished"

    other = tmp_path / "other"
    # The interrupt falls into the evaluation that is due after these steps, so that it is cut short.
    assert started(config, other, interrupted_at=step) == "interrupted"
    assert load_newest(other).state["step"] == step
    assert evaluated_steps(other) == [at for at in (5, 10) if at < step]
    assert resumed(config, other) == "finished"

    assert_same_run(tmp_path / "straight", other, 12)
    assert evaluated_steps(other) == [5, 10, 12]


def test_evaluation_is_made_up_for_once_when_interrupted_again_and_again(
    workshop: Workshop, tmp_path: Path
) -> None:
    config = workshop.config()
    started(config, tmp_path / "straight")
    other = tmp_path / "other"
    started(config, other, interrupted_at=MID_EVALUATION)
    # Again in the evaluation that is being made up for: no step is trained before it.
    assert resumed(config, other, interrupted_at_once=True) == "interrupted"
    assert load_newest(other).state["step"] == MID_EVALUATION
    assert resumed(config, other) == "finished"
    assert_same_run(tmp_path / "straight", other, 12)
    assert evaluated_steps(other) == [5, 10, 12]


def test_evaluation_shows_once_when_the_run_is_killed_after_making_up_for_it(
    workshop: Workshop, tmp_path: Path
) -> None:
    config = workshop.config()
    started(config, tmp_path, interrupted_at=MID_EVALUATION)
    with opened_run(config, tmp_path, load_newest(tmp_path).state) as run:

        def killed() -> None:
            raise ConnectionAbortedError

        # Right after the evaluation the run dies without a word.
        run.loader.next_step = killed  # type: ignore[method-assign,assignment]
        with pytest.raises(ConnectionAbortedError):
            train(run)
    assert resumed(config, tmp_path) == "finished"
    assert [step for step, _ in curves_of(tmp_path)["validation/loss"]] == [5, 10, 12]
    assert evaluated_steps(tmp_path) == [5, 10, 12]


def test_finished_run_stays_as_it_is_when_resumed(workshop: Workshop, tmp_path: Path) -> None:
    config = workshop.config()
    started(config, tmp_path)
    before = (tmp_path / "checkpoint_step_12.pt").read_bytes(), curves_of(tmp_path)
    assert resumed(config, tmp_path) == "finished"
    assert before == ((tmp_path / "checkpoint_step_12.pt").read_bytes(), curves_of(tmp_path))


def test_finished_run_trains_on_when_resumed_with_more_steps(workshop: Workshop, tmp_path: Path) -> None:
    started(workshop.config(), tmp_path)
    assert resumed(workshop.config("training.max_steps=16"), tmp_path) == "finished"
    assert [step for step, _ in curves_of(tmp_path)["train/loss"]] == list(range(1, 17))
