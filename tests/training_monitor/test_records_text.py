"""Records that are lines of text: metrics.jsonl, JSON lines, training.log."""

import json
import math
import os
from pathlib import Path

import pytest

from minigpt.training_monitor.records.record import Options, UnreadableRecordError
from minigpt.training_monitor.records.registry import open_record
from minigpt.training_monitor.records.timeline import Timeline
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.monitor_series import DIP, Triple, decline
from tests.training_monitor.record_files import write_log, write_metrics


def triples(timeline: Timeline) -> list[Triple]:
    return [(signals.step, signals.loss, signals.grad_norm) for signals in timeline.steps()]


def notes(timeline: Timeline) -> dict[str, dict[str, object]]:
    return {note.key: dict(note.values) for note in timeline.notes}


def test_metrics_give_back_the_signals_that_were_written(tmp_path: Path) -> None:
    timeline = open_record(write_metrics(tmp_path / "metrics.jsonl", DIP))
    assert triples(timeline) == DIP
    assert triples(timeline) == DIP, "as often as asked for"
    assert next(timeline.steps()).group_norms == {"head": 1e-4}
    assert {"loss", "grad_norm", "lr", "group_norms"} <= set(timeline.present)
    assert not {"parameters", "update_ratios", "memory_bytes"} & set(timeline.present)


def test_metrics_have_nan_and_infinity_as_numbers(tmp_path: Path) -> None:
    series = [(1, 5.0, 1.0), (2, math.nan, math.inf)]
    steps = list(open_record(write_metrics(tmp_path / "metrics.jsonl", series)).steps())
    assert math.isnan(steps[1].loss)
    assert steps[1].grad_norm == math.inf
    assert steps[1].group_norms == {"head": math.inf}


def test_a_torn_or_foreign_line_is_counted_when_the_rest_is_good(tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "metrics.jsonl", DIP)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + '[1, 2]\n{"step": "x"}\n{"step": 16, "lo', encoding="utf-8")
    timeline = open_record(path)
    assert triples(timeline) == DIP
    assert notes(timeline)["bad_lines"] == {"count": 3, "first": 7}


def test_a_run_folder_gives_its_evaluations_and_what_its_monitor_said(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", DIP)
    events = [
        {"step": 12, "kind": "evaluation", "name": "evaluation", "text": "", "data": {"loss": 8.0}},
        {"step": 14, "kind": "anomaly", "name": "weight_jump", "text": "x", "interrupts": True, "data": {}},
        {"step": 15, "kind": "anomaly", "name": "nan_loss", "text": "x", "superseded": True, "data": {}},
    ]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
    source = open_record(tmp_path).source
    assert [(found.step, found.loss) for found in source.evaluations] == [(12, 8.0)]
    assert [event.name for event in source.events] == ["weight_jump"]
    assert source.watched_live


def test_other_json_lines_are_read_by_their_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    rows = [{"_step": step, "train/loss": loss, "train/grad_norm": norm} for step, loss, norm in DIP]
    path.write_text("\n".join(json.dumps(row) for row in [{"note": "begin"}, *rows]), encoding="utf-8")
    assert triples(open_record(path)) == DIP


def test_log_lines_are_steps_and_evaluations_are_not(tmp_path: Path) -> None:
    timeline = open_record(write_log(tmp_path / "training.log", DIP))
    assert triples(timeline) == [(step, loss, norm) for step, loss, norm in DIP]
    assert next(timeline.steps()).lr == 3e-4
    assert "bad_lines" not in notes(timeline)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Step 7: Loss: nan grad_norm=inf lr=1e-4", (7, math.nan, math.inf)),
        ("iter 7: loss 4.5, time 12.5ms, mfu 3.1%", (7, 4.5, -1.0)),
        ("step 7/19073 | loss 4.5 (+0.1z)| norm 0.25 (-0.2z)| lr 6e-4 | 130 ms | tok/s 9000", (7, 4.5, 0.25)),
        ("{'global_step': 7, 'loss': 4.5, 'grad_norm': 0.25}", (7, 4.5, 0.25)),
        ("[INFO] step=7 train_loss=4.5 gnorm=0.25", (7, 4.5, 0.25)),
        ("step:7/1000 train_loss:4.5 train_time:12ms", (7, 4.5, -1.0)),
    ],
)
def test_a_log_of_another_loop_is_understood(tmp_path: Path, line: str, expected: Triple) -> None:
    path = tmp_path / "out.log"
    path.write_text(f"loading data\n{line}\nstep 7: train loss 1.0, val loss 2.0\n", encoding="utf-8")
    (found,) = triples(open_record(path))
    assert repr(found) == repr(expected)


def test_a_log_of_several_runs_gives_the_last_or_the_one_asked_for(tmp_path: Path) -> None:
    path = write_log(tmp_path / "training.log", decline(10), DIP)
    assert triples(open_record(path)) == DIP
    assert notes(open_record(path))["several_runs"] == {"count": 2, "run": 2}
    assert triples(open_record(path, Options(run=1))) == decline(10)
    with pytest.raises(UnreadableRecordError, match=r"--run 3: .* holds 2 runs; give a number from 1 to 2"):
        open_record(path, Options(run=3))


def test_a_new_run_is_known_by_its_first_checkpoint_when_its_steps_go_on(tmp_path: Path) -> None:
    path = write_log(tmp_path / "training.log", DIP)
    text = path.read_text(encoding="utf-8")
    more = "checkpoint_step_0.pt: the beginning\nStep 20: Loss: 9.0 grad_norm=1 lr=1\n"
    path.write_text(text + more, encoding="utf-8")
    assert triples(open_record(path)) == [(20, 9.0, 1.0)]


def test_steps_trained_again_after_a_resume_count_once_as_trained_last(tmp_path: Path) -> None:
    first = [(step, 5.0, 1.0) for step in range(1, 9)]
    second = [(step, 4.0, 2.0) for step in range(5, 8)]
    third = [(step, 3.0, 3.0) for step in range(6, 8)]
    timeline = open_record(write_log(tmp_path / "training.log", first, second, third))
    assert triples(timeline) == [*first[:4], second[0], *third]
    assert notes(timeline)["resumed"] == {"count": 2, "at": "5, 6"}
    assert timeline.last == 7


def test_warmup_is_seen_in_the_learning_rates(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    rates = [min(step / 20, 1.0) * 3e-4 for step in range(1, 41)]
    lines = [f"Step {step}: Loss: 5 grad_norm=1 lr={rate:.4g}" for step, rate in enumerate(rates, start=1)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert open_record(path).warmup_steps == 20


def test_every_tenth_step_is_told_from_a_full_record(tmp_path: Path) -> None:
    assert open_record(write_log(tmp_path / "training.log", decline(10))).every == 10
    assert open_record(write_metrics(tmp_path / "metrics.jsonl", DIP)).every == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("training.log", "", "training.log is empty; give a record"),
        ("training.log", "hello\n", "no training record that can be read; give a MiniGPT run's folder"),
        ("metrics.jsonl", '{"step": 1}\n', "neither a loss nor a grad_norm among step; say which"),
        ("x.csv", "a,b\n1,2\n", "neither a loss nor a grad_norm among a, b; say which"),
        ("x.csv", "\x01\x02\n", "x.csv is not a text file; give a CSV"),
        ("x.csv", "step,loss\n", "no step with a loss or a gradient norm in this CSV; give a record"),
        ("model.pt", "PK\x03\x04\0\0", "no training record that can be read"),
        ("nested.json", "[" * 100_000, "no training record that can be read"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableRecordError) as refusal:
        open_record(path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_of_several_runs_asks_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_metrics(tmp_path / name / "metrics.jsonl", DIP)
    with pytest.raises(UnreadableRecordError, match=r"holds 2 runs \(a, b\); give one"):
        open_record(tmp_path)


def test_missing_and_empty_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecordError, match="there is no such file or folder"):
        open_record(tmp_path / "nothing")
    with pytest.raises(UnreadableRecordError, match="is empty: no training record among it"):
        open_record(tmp_path)


def test_a_device_is_refused() -> None:
    with pytest.raises(UnreadableRecordError, match="is neither a file nor a folder"):
        open_record(Path(os.devnull))


def test_fields_of_the_batch_come_back_as_written(tmp_path: Path) -> None:
    batch = {"hash": 7, "tokens": 64, "distinct_tokens": 9, "top_fraction": 0.25, "later": 1}
    record = {"step": 1, "loss": 5.0, "grad_norm": 1.0, "group_norms": {}, "batch": batch}
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    (signals,) = open_record(path).steps()
    assert isinstance(signals, StepSignals)
    assert signals.batch is not None
    assert (signals.batch.hash, signals.batch.distinct_tokens) == (7, 9)


def test_fields_that_a_foreign_hand_wrote_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = {
        "step": 1,
        "loss": 5.0,
        "grad_norm": 1.0,
        "group_norms": [1],
        "batch": "x",
        "look": [1],
        "lr": "fast",
    }
    second = {"step": True, "loss": 5.0, "grad_norm": 1.0}
    path.write_text(json.dumps(first) + "\n" + json.dumps(second), encoding="utf-8")
    (signals,) = open_record(path).steps()
    assert signals == StepSignals(1, 5.0, 1.0)
