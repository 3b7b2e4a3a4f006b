"""What a run records of the step that it is about to save, dying before it has: it comes again, and stands once."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.checkpoint.load import load_newest
from minigpt.training.loop import train
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    curves_of,
    evaluated_steps,
    interrupt_at,
    opened_run,
)
from tests.training.troubled_run import ONCE, ROLLBACK, STEPS, TROUBLE, actions, go_bad, resumed, started


def dies(*given: object) -> None:
    """In the place of a save: the records have been written, and no checkpoint knows of them."""
    raise ConnectionAbortedError


def texts_of(run_dir: Path, tag: str) -> list[int]:
    """The steps of a text in TensorBoard, as its own server reads it."""
    events = EventAccumulator(str(run_dir / "monitor_logs"), size_guidance={"tensors": 0})
    events.Reload()
    return [event.step for event in events.Tensors(f"{tag}/text_summary")]


def test_evaluation_stands_once_when_the_run_is_killed_between_making_up_for_it_and_saving(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, straight, killed = workshop.config(), tmp_path / "straight", tmp_path / "killed"
    with opened_run(config, straight) as run:
        assert train(run) == "finished"
    with opened_run(config, killed) as run:
        interrupt_at(run, 5)  # in whose evaluation it is cut short
        assert train(run) == "interrupted"
    for _ in range(2):
        with monkeypatch.context() as patched, opened_run(config, killed, load_newest(killed).state) as run:
            patched.setattr("minigpt.training.loop.save", dies)
            with pytest.raises(ConnectionAbortedError):
                train(run)
    with opened_run(config, killed, load_newest(killed).state) as run:
        assert train(run) == "finished"
    assert_same_run(straight, killed, 12)
    assert evaluated_steps(killed) == [5, 10, 12]
    assert [step for step, _ in curves_of(killed)["validation/loss"]] == [5, 10, 12]


def test_rollback_stands_once_when_the_run_is_killed_before_it_is_saved(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, straight, killed = (
        workshop.config(*TROUBLE, *ROLLBACK),
        tmp_path / "straight",
        tmp_path / "killed",
    )
    assert started(config, straight, ONCE) == "finished"
    with monkeypatch.context() as patched, opened_run(config, killed) as run:
        patched.setattr("minigpt.training.rollback.save", dies)
        go_bad(run, ONCE)
        with pytest.raises(ConnectionAbortedError):
            train(run)
    assert resumed(config, killed, ONCE) == "finished"
    assert_same_run(straight, killed, STEPS)
    standing = [event for event in actions(killed, "rollback") if not event.get("superseded")]
    assert len(standing) == 1
    assert texts_of(killed, "action/rollback") == texts_of(straight, "action/rollback")
