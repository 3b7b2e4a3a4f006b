"""Console, training.log, metrics.jsonl and events.jsonl, also across kills and resumes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.json_lines import read_json_lines
from minigpt.training_monitor.sinks.log_file import LogFileSink
from minigpt.training_monitor.sinks.metrics import MetricsSink
from minigpt.training_monitor.sinks.protocol import Sink

SIGNALS = StepSignals(10, 8.2345, 0.0001, 3e-4, tokens_seen=81920, tokens_per_second=9090.4)
ALARM = Event(
    14, "anomaly", "gradient_vanishing", "⚠️ Anomaly detected at step 14: gradient_vanishing\n   Seen", True
)
QUIET = Event(14, "anomaly", "loss_spike", "loss_spike: transient")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").splitlines()]


def test_log_has_the_line_that_users_grep(tmp_path: Path) -> None:
    sink = LogFileSink(tmp_path / "logs" / "training.log")
    sink.step(SIGNALS, log=True)
    sink.step(replace(SIGNALS, step=11), log=False)
    # read before flush and close: the log is flushed a line at a time
    expected = "Step 10: Loss: 8.2345 grad_norm=0.0001 lr=0.0003 tokens/s=9090 tokens_seen=81920\n"
    assert (tmp_path / "logs" / "training.log").read_text("utf-8") == expected
    sink.close()


def test_log_line_tells_the_rest_when_it_is_known(tmp_path: Path) -> None:
    sink = LogFileSink(tmp_path / "training.log")
    full = replace(
        SIGNALS, loss=math.nan, mfu=0.4567, memory_bytes=3 * 2**29, scaler_scale=65536.0, update_skipped=True
    )
    sink.step(full, log=True)
    sink.close()
    line = (tmp_path / "training.log").read_text("utf-8")
    assert line.startswith("Step 10: Loss: nan grad_norm=0.0001")
    assert line.endswith("mfu=0.457 memory_gib=1.50 scale=65536 update=skipped\n")


def test_log_appends_and_shows_only_what_interrupts(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    for _ in range(2):
        sink = LogFileSink(path)
        sink.event(ALARM)
        sink.event(QUIET)
        sink.evaluation(20, {"loss": 2.31, "perplexity": 10.07})
        sink.flush()
        sink.close()
    lines = path.read_text("utf-8").splitlines()
    assert lines[:3] == [
        *ALARM.text.splitlines(),
        "Step 20: validation_loss=2.3100 validation_perplexity=10.0700",
    ]
    assert len(lines) == 6
    assert not any("Loss:" in line for line in lines)


def test_console_prints_through_the_given_writer() -> None:
    written: list[str] = []
    sink = ConsoleSink(written.append, show_steps=False)
    sink.step(SIGNALS, log=True)
    sink.event(QUIET)
    sink.event(ALARM)
    assert written == [ALARM.text]


def fill(path: Path, last: int, *, first: int = 1, keep_through: int = 0) -> None:
    sink = MetricsSink(path, keep_through=keep_through)
    for step in range(first, last + 1):
        sink.step(StepSignals(step, 3.0, 0.3), log=False)
    sink.flush()
    sink.close()


def test_metrics_have_every_step_once_when_resumed_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, 17)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 18, "loss": 2.')
    fill(path, 20, first=11, keep_through=10)
    assert [record["step"] for record in records(path)] == list(range(1, 21))
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_keep_a_tail_that_was_torn_at_the_kept_step_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, 5)
    path.write_bytes(path.read_bytes()[:-9])
    fill(path, 6, first=5, keep_through=4)
    assert [record["step"] for record in records(path)] == [1, 2, 3, 4, 5, 6]


def test_metrics_begin_anew_when_a_new_run_takes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    fill(path, 5)
    fill(path, 2)
    assert [record["step"] for record in records(path)] == [1, 2]


def test_metrics_are_legal_json_when_numbers_are_not_finite(tmp_path: Path) -> None:
    sink = MetricsSink(tmp_path / "metrics.jsonl")
    sink.step(StepSignals(1, math.nan, math.inf, group_norms={"head": -math.inf}), log=False)
    sink.close()
    (record,) = records(tmp_path / "metrics.jsonl")
    assert (record["loss"], record["grad_norm"], record["group_norms"]) == (
        "NaN",
        "Infinity",
        {"head": "-Infinity"},
    )
    assert math.isnan(float(record["loss"]))


def test_metrics_are_readable_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = MetricsSink(path)
    sink.step(StepSignals(1, 3.0, 0.3), log=False)
    assert [record["step"] for record in read_json_lines(path)] == [1]
    sink.close()


def test_events_mark_what_was_discarded_when_resumed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = EventsSink(path)
    sink.event(Event(5, "save", "checkpoint", "saved"))
    sink.event(ALARM)
    sink.evaluation(20, {"loss": math.nan})
    sink.close()
    again = EventsSink(path, keep_through=10)
    again.event(Event(10, "resume", "resume", "resumed from step 10"))
    again.flush()
    again.close()
    shown = [(entry["step"], entry["kind"], entry.get("superseded", False)) for entry in records(path)]
    assert shown == [
        (5, "save", False),
        (14, "anomaly", True),
        (20, "evaluation", True),
        (10, "resume", False),
    ]


def test_fan_out_hands_everything_to_every_sink(tmp_path: Path) -> None:
    written: list[str] = []
    sinks: list[Sink] = [ConsoleSink(written.append), MetricsSink(tmp_path / "m"), EventsSink(tmp_path / "e")]
    sink = FanOut(sinks)
    sink.step(SIGNALS, log=True)
    sink.event(ALARM)
    sink.evaluation(10, {"loss": 2.0})
    sink.scalars(10, {"grad_check/ok_params": 3.0})
    sink.flush()
    sink.close()
    assert len(written) == 3
    assert len(records(tmp_path / "m")) == 1
    assert len(records(tmp_path / "e")) == 2
