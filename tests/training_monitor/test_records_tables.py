"""Records that are tables or binary: CSV, Hugging Face's trainer state, TensorBoard events."""

import math
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from minigpt.training_monitor.records.record import Options, UnreadableRecordError
from minigpt.training_monitor.records.registry import open_record
from minigpt.training_monitor.records.timeline import UNKNOWN_NORM, Timeline
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink
from tests.training_monitor.monitor_series import DIP, Triple
from tests.training_monitor.record_files import write_lightning_csv, write_trainer_state


def triples(timeline: Timeline) -> list[Triple]:
    return [(signals.step, signals.loss, signals.grad_norm) for signals in timeline.steps()]


def keys(timeline: Timeline) -> set[str]:
    return {note.key for note in timeline.notes}


def test_trainer_state_gives_logged_steps_and_evaluations_apart(tmp_path: Path) -> None:
    timeline = open_record(write_trainer_state(tmp_path / "trainer_state.json", DIP, logging_steps=5))
    assert triples(timeline) == DIP
    assert [(found.step, found.loss) for found in timeline.source.evaluations] == [(15, 3.25)]
    assert {"hf_filter", "hf_mean"} <= keys(timeline)
    assert next(timeline.steps()).lr == 4.5e-05


def test_trainer_state_has_bare_nan(tmp_path: Path) -> None:
    series = [(1, 5.0, 1.0), (2, 0.0, math.nan), (3, 0.0, math.inf)]
    path = write_trainer_state(tmp_path / "trainer_state.json", series)
    assert "NaN" in path.read_text(encoding="utf-8")
    steps = list(open_record(path).steps())
    assert math.isnan(steps[1].grad_norm)
    assert steps[2].grad_norm == math.inf


def test_a_trainers_folder_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    write_trainer_state(tmp_path / "checkpoint-9" / "trainer_state.json", DIP[:2])
    newest = write_trainer_state(tmp_path / "checkpoint-10" / "trainer_state.json", DIP)
    assert open_record(tmp_path).source.path == newest


def test_a_trainer_state_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    path = write_trainer_state(tmp_path / "trainer_state.json", DIP)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index('"step": 15') - 40], encoding="utf-8")
    timeline = open_record(path)
    assert triples(timeline) == DIP[:-1]
    assert "bad_lines" in keys(timeline)


def test_lightnings_csv_is_put_together_from_its_rows(tmp_path: Path) -> None:
    series = [(step, 5.0 - step / 10, 1.0 + step) for step in range(1, 12, 2)]
    write_lightning_csv(tmp_path / "lightning_logs" / "version_9" / "metrics.csv", [(1, 1.0, 1.0)])
    write_lightning_csv(tmp_path / "lightning_logs" / "version_10" / "metrics.csv", series)
    timeline = open_record(tmp_path)
    assert triples(timeline) == series
    assert {signals.lr for signals in timeline.steps()} == {0.1}


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("n;my loss;gn\n1;5.0;1.0\n2;nan;2.0\n3;;3.0\n", encoding="utf-8")
    with pytest.raises(UnreadableRecordError, match="neither a loss nor a grad_norm among n, my loss, gn"):
        open_record(path)
    with pytest.raises(UnreadableRecordError, match=r"has no 'my los'; did you mean my loss\?"):
        open_record(path, Options({"loss": "my los"}))
    timeline = open_record(path, Options({"step": "n", "loss": "my loss", "grad_norm": "gn"}))
    first, second, third = timeline.steps()
    assert (first.loss, first.grad_norm) == (5.0, 1.0)
    assert math.isnan(second.loss)
    assert third.grad_norm == 3.0
    assert "gaps" in keys(timeline)


def test_rows_are_steps_when_a_table_has_no_step(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("loss\n5.0\n4.0\nbad,row,more\n", encoding="utf-8")
    timeline = open_record(path)
    assert triples(timeline) == [(1, 5.0, UNKNOWN_NORM), (2, 4.0, UNKNOWN_NORM)]
    assert "no_step_column" in keys(timeline)
    assert not timeline.has_norm


def test_steps_that_never_rise_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{10 - row % 2},5.0" for row in range(25_000)]
    path.write_text("\n".join(["step,loss", *rows]), encoding="utf-8")
    with pytest.raises(UnreadableRecordError, match="its steps do not rise; sort it by step"):
        open_record(path)


def test_our_own_tensorboard_folder_gives_loss_norm_and_layers(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path / "monitor_logs", layers_every=1)
    for step in (1, 2, 3):
        sink.step(StepSignals(step, 5.0 / step, 1.0 * step, lr=0.5, group_norms={"head": 2.0}), log=False)
    sink.close()
    timeline = open_record(tmp_path)
    assert [step for step, _, _ in triples(timeline)] == [1, 2, 3]
    last = list(timeline.steps())[-1]
    assert last.loss == pytest.approx(5 / 3)
    assert (last.grad_norm, last.lr) == (3.0, 0.5)
    assert last.group_norms == {"head": 2.0}


@pytest.mark.parametrize(
    "tags",
    [("train/loss", "train/grad_norm"), ("train_loss", "grad_norm"), ("Loss/train", "total_grad_norm")],
)
def test_tensorboard_of_others_is_read_by_usual_tags(tmp_path: Path, tags: tuple[str, str]) -> None:
    writer = SummaryWriter(str(tmp_path / "runs" / "one"))
    for step in (1, 2, 3):
        writer.add_scalar(tags[0], 5.0 / step, step)
        writer.add_scalar(tags[1], 1.0 * step, step, new_style=True)
        writer.add_scalar("eval/loss", 9.0, step)
    writer.close()
    found = triples(open_record(tmp_path))
    assert [step for step, _, _ in found] == [1, 2, 3]
    assert [loss for _, loss, _ in found] == pytest.approx([5.0, 2.5, 5 / 3])
    assert [norm for _, _, norm in found] == [1.0, 2.0, 3.0]


def test_a_torn_event_file_gives_what_is_whole(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    for step in range(1, 6):
        sink.step(StepSignals(step, 5.0, 1.0), log=False)
    sink.close()
    (file,) = tmp_path.glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-20])
    timeline = open_record(file)
    assert [step for step, _, _ in triples(timeline)] == [1, 2, 3, 4]
    assert "bad_lines" in keys(timeline)
