"""What stays bounded in a run that never ends, and is the same after a resume."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks import events as events_module
from minigpt.training_monitor.sinks import json_lines
from minigpt.training_monitor.sinks import tensorboard as tensorboard_module
from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.json_lines import read_json_lines
from minigpt.training_monitor.sinks.log_file import LogFileSink
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink
from minigpt.training_monitor.sinks.thinning import stride_at


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with a million steps shrunk to hundreds."""
    monkeypatch.setattr(tensorboard_module, "EVERY_STEP_UNTIL", 40)
    monkeypatch.setattr(tensorboard_module, "TRAIL_STEPS", 6)
    monkeypatch.setattr(events_module, "FIRST_OF_A_KIND", 10)


def signals(step: int) -> StepSignals:
    return StepSignals(step, 1.0 / step, 0.3, clipped=step % 3 == 0, group_norms={"blocks.0": 0.1 * step})


def alarm(step: int) -> Event:
    return Event(step, "anomaly", "loss_spike", "seen", data={"status": "transient"})


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(scalar.step, scalar.value) for scalar in reader.Scalars(tag)] for tag in tags}


def drive(sink: TensorBoardSink, first: int, last: int, alarms: tuple[int, ...]) -> None:
    for step in range(first, last + 1):
        sink.step(signals(step), log=False)
        if step in alarms:
            sink.event(alarm(step))


def test_strides_double_and_the_points_of_a_million_steps_are_bounded() -> None:
    assert [stride_at(number, 4) for number in (1, 4, 5, 8, 9, 16, 17)] == [1, 1, 2, 2, 4, 4, 8]
    first = tensorboard_module.EVERY_STEP_UNTIL
    assert first == 40
    shown = sum(step % stride_at(step, 32_768) == 0 for step in range(1, 1_000_001))
    assert 100_000 < shown < 130_000


def test_curves_of_a_long_run_are_thinned_but_not_around_an_anomaly(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, layers_every=10)
    drive(sink, 1, 320, alarms=(203,))
    sink.close()
    found = curves(tmp_path)
    steps = [step for step, _ in found["train/loss"]]
    around = set(range(201, 210))
    assert steps == [step for step in range(1, 321) if step % stride_at(step, 40) == 0 or step in around]
    assert [step for step, _ in found["train_layers/grad_norm_blocks.0"]] == [
        *(10, 20, 30, 40, 60, 80, 120, 160, 240, 320)
    ]
    shares = dict(found["train/clipped_share"])
    assert shares[320] == pytest.approx(0.33)  # counted at every step, shown or not


@pytest.mark.parametrize("cut", [39, 41, 120, 201, 202, 203, 206, 209, 240])
def test_resumed_curves_are_those_of_a_run_in_one_piece(tmp_path: Path, cut: int) -> None:
    alarms = (45, 203, 207)
    straight = TensorBoardSink(tmp_path / "straight")
    (tmp_path / "resumed").mkdir()
    drive(straight, 1, 320, alarms)
    straight.close()
    before = TensorBoardSink(tmp_path / "resumed")
    drive(before, 1, cut, alarms)
    state = json.loads(json.dumps(before.state_dict()))
    drive(before, cut + 1, cut + 50, ())  # discarded, anomalies and all
    before.event(alarm(cut + 50))
    before.close()
    after = TensorBoardSink(tmp_path / "resumed", keep_through=cut)
    after.load_state_dict(state)
    drive(after, cut + 1, 320, alarms)
    after.close()
    assert curves(tmp_path / "straight") == curves(tmp_path / "resumed")


def test_events_stay_few_when_something_is_wrong_at_every_step(tmp_path: Path) -> None:
    sink = EventsSink(tmp_path / "events.jsonl")
    for step in range(1, 501):
        sink.event(alarm(step))
    sink.evaluation(500, {"loss": 2.0})
    state = json.loads(json.dumps(sink.state_dict()))
    sink.close()
    found = list(read_json_lines(tmp_path / "events.jsonl"))
    steps = [record["step"] for record in found if record["kind"] == "anomaly"]
    assert steps == [step for step in range(1, 501) if step % stride_at(step, 10) == 0]
    assert [record["data"]["what"] for record in found if record["name"] == "left_out"] == [
        "anomaly/loss_spike/transient"
    ]
    assert found[-2]["data"]["left_out"] == 63
    assert found[-1]["kind"] == "evaluation"
    again = EventsSink(tmp_path / "events.jsonl", keep_through=500)
    again.load_state_dict(state)
    again.event(alarm(501))
    assert len(list(read_json_lines(tmp_path / "events.jsonl"))) == len(found)
    again.close()


def metrics_file(path: Path, steps: Iterator[int] | range) -> bytes:
    path.unlink(missing_ok=True)
    sink = MetricsSink(path)
    for step in steps:
        sink.step(signals(step), log=False)
    sink.close()
    return path.read_bytes()


def test_metrics_cut_at_any_byte_are_cut_back_to_the_same_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = metrics_file(path, range(1, 13))
    kept = b"".join(whole.splitlines(keepends=True)[:10])
    for size in range(len(kept), len(whole) + 1):
        path.write_bytes(whole[:size])
        sink = MetricsSink(path, keep_through=10)
        sink.flush()
        assert sink.digest()["bytes"] == len(kept)
        sink.close()
        assert path.read_bytes() == kept


def test_metrics_are_cut_in_place_and_never_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics_file(path, range(1, 30))
    before = path.stat().st_ino
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read whole"))
    MetricsSink(path, keep_through=20).close()
    assert path.stat().st_ino == before
    assert [record["step"] for record in read_json_lines(path)] == list(range(1, 21))


def test_metrics_with_doubles_and_dirt_are_rewritten_with_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = metrics_file(path, range(1, 6)).splitlines(keepends=True)
    torn = lines[1][:20] + lines[2]
    path.write_bytes(
        b"".join([lines[0], b"\n", b"[1]\n", b'{"step": true}\n', torn, *lines[:4], lines[2], lines[4]])
    )
    MetricsSink(path, keep_through=4).close()
    assert path.read_bytes() == b"".join(lines[:4])
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_survive_a_giant_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LONGEST_LINE_BYTES", 1000)
    path = tmp_path / "metrics.jsonl"
    whole = metrics_file(path, range(1, 4))
    path.write_bytes(whole + b"x" * 5000 + b"\n")
    MetricsSink(path, keep_through=3).close()
    assert path.read_bytes() == whole


def test_log_begins_anew_when_it_is_large_and_keeps_the_last_ones(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "training.log"
    sink = LogFileSink(path, most_bytes=1000, kept=2)
    before = path.stat().st_ino
    for step in range(1, 101):
        sink.step(signals(step), log=True)
    sink.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        *("training.log", "training.log.1", "training.log.2")
    ]
    assert path.stat().st_ino == before  # `tail -f` follows
    text = "".join(
        (path.parent / name).read_text() for name in ("training.log.2", "training.log.1", "training.log")
    )
    steps = [int(line.split()[1][:-1]) for line in text.splitlines()]
    assert steps == list(range(steps[0], 101))
    assert all((path.parent / f"training.log.{number}").stat().st_size < 1200 for number in (1, 2))


def _write_log(path: Path, who: int, lines: int) -> None:
    sink = LogFileSink(path, most_bytes=3000, kept=1000)
    for line in range(lines):
        sink.event(Event(1, "save", "checkpoint", f"writer {who} line {line} {'.' * 20}"))
    sink.flush()
    sink.close()


def test_log_of_several_runs_loses_and_tears_no_line_while_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_log, args=(path, who, 400)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    wanted = [f"writer {who} line {line} {'.' * 20}" for who in range(3) for line in range(400)]
    assert sorted(lines) == sorted(wanted)


def test_log_goes_on_when_it_is_moved_or_its_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.log"
    sink: Any = LogFileSink(path)

    def save(text: str) -> None:
        sink.event(Event(1, "save", "checkpoint", text))

    save("one")
    path.rename(tmp_path / "old.log")
    save("two")
    own = os.write
    monkeypatch.setattr("os.write", lambda descriptor, data: own(descriptor, data[:2]))
    save("three")
    assert sink.trouble is not None
    monkeypatch.undo()
    save("four")
    assert sink.trouble is None
    assert path.read_text() == "two\nth\nthree\nfour\n"
    sink.close()
