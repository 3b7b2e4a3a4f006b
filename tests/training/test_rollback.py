"""A run that goes back before its trouble and past it, whatever interrupts it on the way."""

import signal
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_checkpoint
from minigpt.errors import CheckpointError
from minigpt.training.loop import train
from minigpt.training.run import Run
from minigpt.training.save import save
from minigpt.training_monitor.action import Stop
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    interrupt_at,
    metrics_of,
    opened_run,
    read_lines,
)
from tests.training.troubled_run import (
    LATE_TROUBLED_PROGRAM,
    ONCE,
    ROLLBACK,
    STEPS,
    TROUBLE,
    TROUBLED_PROGRAM,
    actions,
    go_bad,
    resumed,
    started,
    stretch,
)

LOAD, SAVE = "minigpt.training.rollback.load_checkpoint", "minigpt.training.rollback.save"


def final_loss(run_dir: Path) -> float:
    return float(sum(record["loss"] for record in metrics_of(run_dir)[-5:]) / 5)


def test_run_goes_back_and_past_the_bad_data_when_a_spike_lasts(
    workshop: Workshop, tmp_path: Path, reads: bool | None
) -> None:
    acting, watching = tmp_path / "acting", tmp_path / "watching"
    assert started(workshop.config(*TROUBLE, *ROLLBACK), acting, ONCE) == "finished"
    assert started(workshop.config(*TROUBLE), watching, ONCE) == "finished"

    (done,) = actions(acting, "rollback")
    data = done["data"]
    assert isinstance(data, dict)
    # The trouble begins at step 45: the checkpoint of step 40 is too close to it to be trusted.
    assert data["opened_at"] == 45
    assert data["to_step"] == done["step"] == 30
    assert data["cause"] in ("loss_spike", "gradient_exploding")
    assert data["skipped_from_window"] == 30 * 8
    # At once or late, the step after the one that was told of counts as read.
    assert data["skipped_to_window"] == (data["from_step"] + (not reads) + 3) * 8 > ONCE[1]
    assert 0 < data["skipped_documents"] <= 10
    assert "Rolled back from step" in str(done["text"])

    records = metrics_of(acting)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert [record["position"] for record in records[28:32]] == [
        28 * 8,
        29 * 8,
        data["skipped_to_window"],
        data["skipped_to_window"] + 8,
    ]
    # Not one bad batch is left in the record, and the weights saw none.
    assert max(record["loss"] for record in records[30:]) < 1.1 * records[29]["loss"]
    assert final_loss(acting) < final_loss(watching)
    (aside,) = acting.glob("after_step_30_until_*")
    assert len(metrics_of(aside)) == data["from_step"]


def test_checkpoint_right_before_the_trouble_serves_when_there_is_no_older_one(
    workshop: Workshop, tmp_path: Path
) -> None:
    config = workshop.config(*TROUBLE, *ROLLBACK, "checkpoint.keep_last=1", "checkpoint.keep_best=false")
    started(config, tmp_path, ONCE)
    assert [event["step"] for event in actions(tmp_path, "rollback")] == [40]


def test_damaged_checkpoint_is_passed_over_when_rolling_back(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_run(workshop.config(*TROUBLE, *ROLLBACK), tmp_path) as run:
        go_bad(run, ONCE)

        def damaged(path: Path) -> dict[str, object]:
            if path.name == "checkpoint_step_30.pt" and run.position.rollbacks == 0:
                raise CheckpointError(f"{path} is damaged")
            return load_checkpoint(path)

        monkeypatch.setattr(LOAD, damaged)
        assert train(run) == "finished"
    assert [event["step"] for event in actions(tmp_path, "rollback")] == [40]


@pytest.mark.parametrize("moment", ["before it is saved", "right after", "ctrl-c", "ctrl-c a step before"])
def test_resumed_run_equals_the_straight_one_when_killed_around_a_rollback(
    moment: str, reads: bool | None, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = workshop.config(*TROUBLE, *ROLLBACK, "model.dropout=0.1")
    straight, other = tmp_path / "straight", tmp_path / "other"
    assert started(config, straight, ONCE) == "finished"

    def killed(run: Run, reason: str) -> None:
        if moment == "right after":
            save(run, reason)
        raise ConnectionAbortedError

    with opened_run(config, other) as run, monkeypatch.context() as patched:
        go_bad(run, ONCE)
        if moment.startswith("ctrl-c"):
            # In the very step whose finding asks for the rollback; or while that is read late, in the next one.
            (done,) = actions(straight, "rollback")
            assert isinstance(done["data"], dict)
            interrupt_at(run, done["data"]["from_step"] - (moment != "ctrl-c"))
            assert train(run) == "interrupted"
            assert run.position.rollbacks == (1 if reads or moment == "ctrl-c" else 0)
        else:
            patched.setattr(SAVE, killed)
            with pytest.raises(ConnectionAbortedError):
                train(run)
    assert resumed(config, other, ONCE) == "finished"
    assert_same_run(straight, other, STEPS)


@pytest.mark.parametrize("late", [False, True])
def test_all_ranks_go_back_together(late: bool, workshop: Workshop, tmp_path: Path) -> None:
    program = LATE_TROUBLED_PROGRAM if late else TROUBLED_PROGRAM
    with workshop.start(tmp_path / "two", *TROUBLE, *ROLLBACK, ranks=2, program=program) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert printed.count("Rolled back from step") == 1
    assert started(workshop.config(*TROUBLE, *ROLLBACK), tmp_path / "one", ONCE) == "finished"
    (two,), (one,) = (actions(tmp_path / name, "rollback") for name in ("two", "one"))
    differs = {key: two["data"][key] for key in ("aside", "from_step")}  # type: ignore[index]
    assert two["data"] == {**one["data"], **differs}  # type: ignore[dict-item]
    assert differs["from_step"] == one["data"]["from_step"] + late  # type: ignore[index]
    losses = [[record["loss"] for record in metrics_of(tmp_path / name)] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_second_rollback_lowers_the_rate_and_the_third_stops(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data is bad from step 45 on, for longer than two rollbacks reach."""
    config = workshop.config(*TROUBLE, *ROLLBACK, "monitor.policy.lower_lr_steps=5")
    with opened_run(config, tmp_path) as run:
        go_bad(run, stretch(first_step=45, steps=1000))
        outcome = train(run)
        assert isinstance(outcome, Stop)
        verdict = run.monitor.verdict(outcome.cause)
    assert "after 2 rollback(s)" in outcome.reason
    assert any("Anomaly detected at step" in line for line in verdict)
    done = actions(tmp_path, "rollback")
    assert [event["data"]["rollbacks"] for event in done] == [1, 2]  # type: ignore[index]
    assert ["Learning rate: x 0.5 for 5 steps" in str(event["text"]) for event in done] == [False, True]
    last = done[-1]["step"]
    assert isinstance(last, int)
    rates = {record["step"]: record["lr"] for record in metrics_of(tmp_path)}
    assert [rates[last + step] for step in (1, 5)] == pytest.approx([0.0015, 0.0015])
    assert rates[last + 6] == pytest.approx(0.003 * (0.5 + 0.5 / 101))
    # What it ended with is saved, and so is a checkpoint from before the trouble.
    step = run.position.step
    assert not torch.load(tmp_path / f"checkpoint_step_{step}.pt")["healthy"]
    assert any(torch.load(path)["healthy"] for path in checkpoints_by_step(tmp_path).values())


def test_run_stops_when_there_is_no_healthy_checkpoint_to_go_back_to(
    workshop: Workshop, tmp_path: Path
) -> None:
    with opened_run(workshop.config(*TROUBLE, *ROLLBACK), tmp_path) as run:
        go_bad(run, ONCE)
        for path in checkpoints_by_step(tmp_path).values():
            path.unlink()
        run.checkpoints = run.checkpoints.model_copy(update={"every_steps": 1000})
        outcome = train(run)
    assert isinstance(outcome, Stop)
    assert "no healthy checkpoint" in outcome.reason
    assert list(checkpoints_by_step(tmp_path)) == [outcome.step]


def test_rollback_is_told_on_the_console_and_what_it_discarded_stays_in_the_events(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with opened_run(workshop.config(*TROUBLE, *ROLLBACK), tmp_path) as run:
        go_bad(run, ONCE)
        monkeypatch.setattr(run.progress, "say", said.append)
        train(run)
    told = [line for line in said if line.startswith("Rolled back")]
    assert len(told) == 1
    assert "past" in told[0]
    assert "documents" in told[0]
    log = Path("logs/training.log").read_text(encoding="utf-8")
    assert "Rolled back from step" in log
    events = read_lines(tmp_path / "events.jsonl")
    sustained = [event for event in events if event["data"].get("status") == "sustained"]
    assert sustained
    assert all(event["superseded"] for event in sustained if event["step"] > 30)


def test_interrupt_during_the_rollback_saves_where_it_went(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_run(workshop.config(*TROUBLE, *ROLLBACK), tmp_path) as run:
        go_bad(run, ONCE)

        def interrupted(path: Path) -> dict[str, object]:
            run.interrupt.signal = signal.SIGTERM
            return load_checkpoint(path)

        monkeypatch.setattr(LOAD, interrupted)
        assert train(run) == "interrupted"
    newest = max(checkpoints_by_step(tmp_path))
    assert newest == 31
    assert torch.load(tmp_path / "checkpoint_step_31.pt")["position"]["rollbacks"] == 1
