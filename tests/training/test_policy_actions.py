"""The policy's milder actions on real runs: a lower learning rate for a while, a skipped spike, a stop."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.model.loss import LossSums
from minigpt.optim.schedule import LoweredRate
from minigpt.training.loop import train
from minigpt.training.rate import learning_rate_of, lower_learning_rate
from minigpt.training.run import Run
from minigpt.training.step import train_step
from minigpt.training_monitor.action import Stop
from tests.training.test_step import moments, tiny, weights
from tests.training.tiny_run import (
    Workshop,
    assert_same,
    assert_same_run,
    interrupt_at,
    metrics_of,
    opened_run,
    random_batch,
    read_lines,
    step_batches,
)
from tests.training.troubled_run import ONCE, STEPS, TROUBLE, actions, go_bad, resumed, started, stretch

LOWER = (
    "monitor.policy.on_sustained=lower_lr",
    "monitor.policy.lower_lr_factor=0.2",
    "monitor.policy.lower_lr_steps=6",
    "monitor.policy.rewarm_steps=3",
)


def test_lowered_rate_holds_and_rises_back_along_a_line() -> None:
    lowered = LoweredRate(since=10, factor=0.2, steps=3, rewarm_steps=3)
    assert [lowered.scale_at(step) for step in range(9, 18)] == pytest.approx(
        [1, 0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 1, 1]
    )
    assert LoweredRate(0, 0.5, 2, 0).scale_at(2) == 1


def test_rate_that_is_lowered_goes_lower_when_lowered_again(workshop: Workshop) -> None:
    with tiny(workshop, "schedule.kind=constant", "schedule.warmup_steps=0") as run:
        lower_learning_rate(run, 0, 0.5, 10, 5)
        run.position.step = 4
        lower_learning_rate(run, 5, 0.5, 10, 5)
        # The second one begins a step later.
        assert learning_rate_of(run) == pytest.approx(0.01 / 2)
        run.position.step = 5
        assert learning_rate_of(run) == pytest.approx(0.01 / 4)
        run.position.step = 20
        assert learning_rate_of(run) == pytest.approx(0.01)


def lowered_at(run_dir: Path) -> int:
    (event,) = actions(run_dir, "lower_lr")
    assert isinstance(event["step"], int)
    return event["step"]


@pytest.mark.usefixtures("reads")
def test_rate_is_lowered_for_a_while_when_a_spike_lasts(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(workshop.config(*TROUBLE, *LOWER), tmp_path, ONCE) == "finished"
    step, records = lowered_at(tmp_path), metrics_of(tmp_path)
    # From the second step after on: on a GPU the one in between has begun when this one is read.
    assert [record["lr"] / 0.003 for record in records[step : step + 12]] == pytest.approx(
        [1, *[0.2] * 6, 0.4, 0.6, 0.8, 1, 1]
    )
    # What was meant is no mismatch.
    assert all(record.get("scheduled_lr", record["lr"]) == record["lr"] for record in records)
    assert "the learning rate is x 0.2 for 6 steps" in capsys.readouterr().out


@pytest.mark.usefixtures("reads")
@pytest.mark.parametrize("after", [0, 1, 8])
def test_resumed_run_has_the_same_rates_when_interrupted_while_it_is_lowered(
    after: int, workshop: Workshop, tmp_path: Path
) -> None:
    config = workshop.config(*TROUBLE, *LOWER)
    straight, other = tmp_path / "straight", tmp_path / "other"
    started(config, straight, ONCE)
    with opened_run(config, other) as run:
        go_bad(run, ONCE)
        interrupt_at(run, lowered_at(straight) + after)
        assert train(run) == "interrupted"
    assert resumed(config, other, ONCE) == "finished"
    assert_same_run(straight, other, STEPS)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_step_above_the_bound_leaves_no_trace_in_weights_and_moments(
    optimizer: str, workshop: Workshop
) -> None:
    with tiny(workshop, f"optimizer.name={optimizer}") as run:
        for seed in range(2):
            train_step(run, step_batches(random_batch(4, seed)), 0.01)
        before = weights(run), moments(run)
        run.skip_above = 0.1
        numbers = train_step(run, step_batches(random_batch(4, 9)), 0.01).numbers
        assert numbers[:2].isfinite().all()
        assert numbers[1] == 1
        assert_same(weights(run), before[0])
        assert_same(moments(run), before[1])
        run.skip_above = 1e9
        assert train_step(run, step_batches(random_batch(4, 9)), 0.01).numbers[1] == 0


def scaled_at(run: Run, steps: set[int], factor: float) -> None:
    """The loss that is descended is `factor` times too large in these steps (counted from 1)."""

    def scale(module: nn.Module, arguments: object, output: object) -> object:
        if not isinstance(output, LossSums) or run.position.step + 1 not in steps:
            return output
        return LossSums(output.total * factor, output.cross_entropy)

    run.model.register_forward_hook(scale)


# The fp16 factor overflows at the first scale, and not at the half of it that is left afterwards.
@pytest.mark.parametrize(("precision", "factor"), [("off", 12.0), ("fp16", 400.0)])
def test_spike_is_skipped_and_the_run_goes_on_when_asked(
    precision: str, factor: float, workshop: Workshop, tmp_path: Path
) -> None:
    settings = (*TROUBLE, "monitor.policy.skip_spikes=true", f"training.mixed_precision={precision}")
    with opened_run(workshop.config(*settings), tmp_path) as run:
        scaled_at(run, {50, 70}, factor)
        assert train(run) == "finished"
    records = metrics_of(tmp_path)
    assert [record["step"] for record in records if record["update_skipped"]] == [50, 70]
    # In fp16 the first one overflows indeed: that is the scaler's.
    assert [records[step - 1]["scaler_overflow"] for step in (50, 70)] == [precision == "fp16", False]
    skips = [event["step"] for event in actions(tmp_path, "skip_update")]
    assert skips == ([70] if precision == "fp16" else [50, 70])
    checkpoint = torch.load(tmp_path / f"checkpoint_step_{STEPS}.pt")
    steps = {state["step"].item() for state in checkpoint["optimizer_state_dicts"][0]["state"].values()}
    assert steps == {STEPS - 2}


def test_spike_is_applied_when_nothing_was_asked(workshop: Workshop, tmp_path: Path) -> None:
    with opened_run(workshop.config(*TROUBLE), tmp_path) as run:
        scaled_at(run, {50}, 12.0)
        train(run)
    assert not any(record["update_skipped"] for record in metrics_of(tmp_path))


@pytest.mark.usefixtures("reads")
def test_resumed_run_skips_the_same_spikes(workshop: Workshop, tmp_path: Path) -> None:
    config = workshop.config(*TROUBLE, "monitor.policy.skip_spikes=true")
    straight, other = tmp_path / "straight", tmp_path / "other"
    for folder, interrupted_at in ((straight, None), (other, 49), (other, None)):
        saved = torch.load(folder / "checkpoint_step_49.pt") if folder.is_dir() else None
        with opened_run(config, folder, saved) as run:
            scaled_at(run, {50, 52}, 12.0)
            if interrupted_at is not None:
                interrupt_at(run, interrupted_at)
            train(run)
    assert_same_run(straight, other, STEPS)


def test_run_stops_with_a_verdict_when_asked_to(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from minigpt.training.ending import ended

    with opened_run(workshop.config(*TROUBLE, "monitor.policy.on_sustained=stop"), tmp_path) as run:
        go_bad(run, ONCE)
        outcome = train(run)
        assert isinstance(outcome, Stop)
        capsys.readouterr()
        assert ended(run, outcome, 1.0) == 4
    printed = capsys.readouterr().out
    assert f"Stopped by the monitor after step {outcome.step}" in printed
    assert "Verdict: " in printed
    for part in (f"Anomaly detected at step {outcome.step}: {outcome.cause}", "Likely cause", "What to do"):
        assert part in printed
    assert f"From the last healthy checkpoint: python -m minigpt train --resume {tmp_path}" in printed
    assert max(checkpoints_by_step(tmp_path)) == outcome.step


def test_checkpoint_is_marked_and_the_last_healthy_one_stays_when_trouble_lasts(
    workshop: Workshop, tmp_path: Path
) -> None:
    settings = (*TROUBLE, "checkpoint.every_steps=5", "checkpoint.keep_last=1", "checkpoint.keep_best=false")
    with opened_run(workshop.config(*settings), tmp_path) as run:
        go_bad(run, stretch(first_step=43, steps=1000))
        run.config = run.config.model_copy(update={"max_steps": 62})
        train(run)
    saves = [event for event in read_lines(tmp_path / "events.jsonl") if event["kind"] == "save"]
    healthy = {event["step"]: event["data"]["healthy"] for event in saves}
    assert all(healthy[step] for step in range(5, 45, 5))
    assert not any(healthy[step] for step in (45, 50, 55, 60))
    assert "not healthy: loss_spike" in next(event["text"] for event in saves if event["step"] == 50)
    # Five checkpoints were taken since.
    assert {40, 62} <= set(checkpoints_by_step(tmp_path))
    assert torch.load(tmp_path / "checkpoint_step_40.pt")["healthy"]
    assert torch.load(tmp_path / "checkpoint_step_62.pt")["open_findings"]["loss_spike"] == "sustained"
    assert math.isfinite(metrics_of(tmp_path)[-1]["loss"])
