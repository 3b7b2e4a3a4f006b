"""Numbers read one step late, as on CUDA: the same run, the same findings, and nobody waits for the device."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from minigpt.checkpoint.load import load_newest
from minigpt.model.loss import LossSums
from minigpt.training import loop
from minigpt.training.bundle import read_bundle
from minigpt.training.loop import train
from minigpt.training.observe import Observer
from minigpt.training.replay import replay
from minigpt.training.run import Run
from minigpt.training.stopwatch import Stopwatch
from minigpt.training_monitor.action import Stop
from minigpt.training_monitor.look import Look
from tests.training.poisoned import PoisonAfter, nothing
from tests.training.test_policy_actions import LOWER, scaled_at
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    interrupt_at,
    metrics_of,
    opened_run,
    read_lines,
)
from tests.training.troubled_run import ONCE, ROLLBACK, STEPS, TROUBLE, go_bad
from tests.training_monitor.device_side import DeviceSide

LOOKS = ("monitor.look_every_steps=40", "monitor.look_every_steps_on_suspicion=1")
UNTIL_LOWERED = 64
STOP = ("monitor.policy.on_sustained=stop",)


def troubled(
    workshop: Workshop, run_dir: Path, *settings: str, late: bool, interrupts: Sequence[int] = ()
) -> PoisonAfter:
    """The run with its bad stretch, gone on with after each interrupt; what its sinks were told."""
    config = workshop.config(*TROUBLE, *settings)
    kept = []
    for interrupt in (*interrupts, None):
        saved = load_newest(run_dir).state if run_dir.is_dir() else None
        with opened_run(config, run_dir, saved) as run:
            run.reads_late = late
            run.sinks = sinks = PoisonAfter(run, nothing)
            go_bad(run, ONCE)
            if interrupt is not None:
                interrupt_at(run, interrupt)
            train(run)
        kept.append(sinks)
    for sinks in kept[:-1]:
        kept[-1].events = sinks.events + kept[-1].events
        kept[-1].signals = sinks.signals + kept[-1].signals
    return kept[-1]


def anomalies(sinks: PoisonAfter) -> list[tuple[str, int, object]]:
    return [
        (event.name, event.step, event.data["status"]) for event in sinks.events if event.kind == "anomaly"
    ]


def saves(run_dir: Path) -> list[tuple[int, bool]]:
    """Steps of the checkpoints, and whether each was taken in health."""
    events = read_lines(run_dir / "events.jsonl")
    return [(event["step"], event["data"]["healthy"]) for event in events if event["kind"] == "save"]


@pytest.mark.parametrize(
    "settings",
    [LOOKS, LOWER, ROLLBACK, ("monitor.policy.skip_spikes=true", "monitor.policy.skip_spikes_z_score=3")],
)
def test_run_is_the_same_to_the_last_bit_when_its_numbers_are_read_late(
    settings: tuple[str, ...], workshop: Workshop, tmp_path: Path
) -> None:
    at_once, late = (
        troubled(workshop, tmp_path / name, *settings, late=name == "late") for name in ("at once", "late")
    )
    assert_same_run(tmp_path / "at once", tmp_path / "late", STEPS)
    assert anomalies(at_once)
    # A rollback that is told late has seen one step more of what it takes back.
    assert set(anomalies(late)) >= set(anomalies(at_once))
    if settings != ROLLBACK:
        assert anomalies(late) == anomalies(at_once)
        assert saves(tmp_path / "late") == saves(tmp_path / "at once")
    assert any(record["update_skipped"] for record in metrics_of(tmp_path / "late")) == (
        "skip" in settings[0]
    )


def test_looks_on_suspicion_are_at_the_same_steps_however_late_and_however_often_interrupted(
    workshop: Workshop, tmp_path: Path
) -> None:
    looks: list[dict[int, Look]] = []
    for late, interrupts in ((False, ()), (True, ()), (True, (44, 45, 46, 47, 48)), (False, (46, 49))):
        sinks = troubled(workshop, tmp_path / str(len(looks)), *LOOKS, late=late, interrupts=interrupts)
        looks.append({signals.step: signals.look for signals in sinks.signals if signals.look is not None})
    opened = min(step for step in looks[0] if step not in (40, 80))
    assert 46 <= opened <= 50
    assert len(looks[0]) > 10
    assert looks[0] == looks[1] == looks[2] == looks[3]


def test_late_stop_keeps_its_step_and_loses_no_record(workshop: Workshop, tmp_path: Path) -> None:
    config = workshop.config(*TROUBLE, *STOP)
    ended = []
    for late in (False, True):
        with opened_run(config, tmp_path / str(late)) as run:
            run.reads_late = late
            go_bad(run, ONCE)
            outcome = train(run)
            assert isinstance(outcome, Stop)
            ended.append((outcome, run.position.step))
            assert run.monitor.verdict(outcome.cause)
    (stop, stood_at), (late_stop, late_stood_at) = ended
    assert stop == late_stop
    assert (stood_at, late_stood_at) == (stop.step, stop.step + 1)
    run_dir = tmp_path / "True"
    assert [record["step"] for record in metrics_of(run_dir)] == list(range(1, late_stood_at + 1))
    # None that was taken since the trouble began passes for healthy.
    assert [step for step, healthy in saves(run_dir) if healthy] == [0, 10, 20, 30, 40]
    assert saves(run_dir)[-1] == (late_stood_at, False)
    bundle = read_bundle(run_dir / f"crash_step_{stop.step}.pt")
    windows = [index for batch in bundle.micro_batches for index in batch.window_indices]
    before = read_bundle(tmp_path / "False" / f"crash_step_{stop.step}.pt")
    assert windows == [index for batch in before.micro_batches for index in batch.window_indices]
    assert bundle.signals["loss"] == before.signals["loss"]


def test_rollback_that_cannot_be_ends_with_every_step_on_record(workshop: Workshop, tmp_path: Path) -> None:
    with opened_run(workshop.config(*TROUBLE, *ROLLBACK, "monitor.policy.max_rollbacks=0"), tmp_path) as run:
        run.reads_late = True
        go_bad(run, ONCE)
        outcome = train(run)
    assert isinstance(outcome, Stop)
    step = load_newest(tmp_path).state["step"]
    assert [record["step"] for record in metrics_of(tmp_path)] == list(range(1, step + 1))


def test_stop_is_not_lost_when_it_is_read_while_the_run_is_interrupted(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling is broken off at a step that was not saved, whose numbers are still under way."""
    with opened_run(workshop.config(*TROUBLE, *STOP), tmp_path / "straight") as run:
        go_bad(run, ONCE)
        stop = train(run)
    assert isinstance(stop, Stop)
    monkeypatch.setattr(loop, "compiling_is_due", lambda run: run.position.step == stop.step)
    monkeypatch.setattr(loop, "go_over_to_compiled", lambda run: False)
    with opened_run(workshop.config(*TROUBLE, *STOP), tmp_path / "late") as run:
        run.reads_late = True
        go_bad(run, ONCE)
        assert train(run) == stop
    saves = [
        event["text"] for event in read_lines(tmp_path / "late" / "events.jsonl") if event["kind"] == "save"
    ]
    assert saves[-1].startswith(f"checkpoint_step_{stop.step}.pt: stopping (marked as not healthy")
    assert (tmp_path / "late" / f"crash_step_{stop.step}.pt").exists()


def nan_at(run: Run, *steps: int) -> None:
    """The loss of these steps is NaN."""

    def poison(module: nn.Module, arguments: tuple[object, ...], output: object) -> object:
        if run.position.step + 1 not in steps or not isinstance(output, LossSums):
            return output
        return LossSums(*(value * math.nan for value in output))

    run.model.register_forward_hook(poison)


@pytest.mark.parametrize(("bad", "exact"), [((6,), False), ((6, 7), True)])
def test_bundle_read_late_says_whether_its_weights_are_the_steps_own(
    bad: tuple[int, ...], exact: bool, workshop: Workshop, tmp_path: Path
) -> None:
    """They are, where the update of the step that has run since was called off too."""
    with opened_run(workshop.config(), tmp_path / "late") as run:
        run.reads_late = True
        nan_at(run, *bad)
        train(run)
    with opened_run(workshop.config(), tmp_path / "at once") as run:
        nan_at(run, *bad)
        train(run)
    late, at_once = (read_bundle(tmp_path / name / "crash_step_6.pt") for name in ("late", "at once"))
    assert (late.step, late.weights_exact, at_once.weights_exact) == (6, exact, True)
    same = all(torch.equal(value, at_once.weights[name]) for name, value in late.weights.items())
    assert same == exact
    assert torch.equal(late.micro_batches[0].inputs_BT, at_once.micro_batches[0].inputs_BT)
    assert torch.equal(late.rng["torch"], at_once.rng["torch"])
    story = "\n".join(replay(tmp_path / "late" / "crash_step_6.pt", torch.device("cpu"), None))
    assert "step 6 of tiny" in story
    assert ("may be one update later" in story) != exact


def test_boundaries_have_every_step_before_them_on_record(workshop: Workshop, tmp_path: Path) -> None:
    """An evaluation and a checkpoint come after the numbers of their own step."""
    order: list[tuple[str, int]] = []
    with opened_run(workshop.config(), tmp_path) as run:
        run.reads_late = True
        tell, evaluated = run.sinks.event, run.sinks.evaluation

        class Ordered(PoisonAfter):
            def step(self, signals: object, *, log: bool) -> None:
                super().step(signals, log=log)  # type: ignore[arg-type]
                order.append(("step", signals.step))  # type: ignore[attr-defined]

            def event(self, event: object) -> None:
                tell(event)  # type: ignore[arg-type]
                order.append((event.kind, event.step))  # type: ignore[attr-defined]

            def evaluation(self, step: int, results: object) -> None:
                evaluated(step, results)  # type: ignore[arg-type]
                order.append(("evaluation", step))

        run.sinks = Ordered(run, nothing)
        train(run)
    steps = [("step", step) for step in range(1, 13)]
    assert [entry for entry in order if entry[0] == "step"] == steps
    for kind, at in order:
        if kind in ("evaluation", "save"):
            assert order.index(("step", at)) < order.index((kind, at))
    assert [at for kind, at in order if kind == "save"] == [4, 5, 8, 10, 12]


@pytest.mark.parametrize("precision", ["off", "fp16"])
def test_training_step_waits_for_nothing_but_the_late_read(
    precision: str, workshop: Workshop, tmp_path: Path
) -> None:
    """Ordinary steps, looks on the beat and on suspicion, a skipped spike, clipping, a lowered rate."""
    looking = ("monitor.look_every_steps=20", "monitor.look_every_steps_on_suspicion=2")
    skipping = ("monitor.policy.skip_spikes=true", f"training.mixed_precision={precision}")
    with opened_run(workshop.config(*TROUBLE, *LOWER, *looking, *skipping), tmp_path) as run:
        run.reads_late = True
        run.sinks = sinks = PoisonAfter(run, nothing)
        scaled_at(run, {42}, 12.0)
        go_bad(run, ONCE)
        observer, watch = Observer(run), Stopwatch()
        with DeviceSide(run.model) as side:
            for _ in range(UNTIL_LOWERED):
                action = loop._next_step(run, observer, watch)
                assert action is not None
                loop._heed(run, action, observer)
    looks = [signals.step for signals in sinks.signals if signals.look is not None]
    assert set(looks) > {20, 40, 60}
    assert any(signals.update_skipped for signals in sinks.signals)
    assert run.position.lowered is not None
    assert set(side.syncs) == {"deferred_read.py:drain"}
    into_the_future = [signals for signals in sinks.signals if signals.future_influence is not None]
    assert into_the_future
    assert len(side.syncs) == UNTIL_LOWERED - 1 + len(looks) + len(into_the_future)


def test_muon_calls_an_update_off_without_asking_the_host(workshop: Workshop, tmp_path: Path) -> None:
    config = workshop.config("optimizer.name=muon", "monitor.check_causality=false")
    with opened_run(config, tmp_path) as run:
        run.reads_late = True
        observer, watch = Observer(run), Stopwatch()
        with DeviceSide(run.model) as side:
            for _ in range(4):
                loop._next_step(run, observer, watch)
    assert side.syncs == ["deferred_read.py:drain"] * 3
