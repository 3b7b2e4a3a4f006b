"""What the monitor's records do when their disk is full, and when it has room again: training never ends of it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.facade import LoopMonitor
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.console import ConsoleSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.guarded import Guarded
from minigpt.training_monitor.sinks.in_folder import folder_sinks
from minigpt.training_monitor.sinks.json_lines import read_json_lines
from minigpt.training_monitor.sinks.metrics import MetricsSink
from tests.training_monitor.bad_disk import BadDisk
from tests.training_monitor.recording_sink import RecordingSink


def shown(folder: Path, tag: str) -> list[int]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [scalar.step for scalar in reader.Scalars(tag)]


def test_records_are_whole_and_the_user_told_when_the_disk_was_full_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, said = BadDisk(monkeypatch), list[str]()
    sinks = FanOut([ConsoleSink(said.append, show_steps=False), *folder_sinks(tmp_path, 0)])
    for step in range(1, 201):
        disk.share = 1.0 if 50 <= step < 120 else 0.0
        sinks.step(StepSignals(step, 3.0, 0.3), log=False)
    sinks.flush()
    sinks.close()
    assert [record["step"] for record in read_json_lines(tmp_path / "metrics.jsonl")] == list(range(1, 201))
    assert shown(tmp_path / "monitor_logs", "train/loss") == list(range(1, 201))
    failing = [line for line in said if "cannot be written" in line]
    again = [line for line in said if "can be written again" in line]
    # events.jsonl fails of the first note that it is to hold.
    assert [line.split(" cannot")[0] for line in failing] == [
        "warning: metrics.jsonl",
        "warning: TensorBoard's monitor_logs",
        "warning: events.jsonl",
    ]
    assert len(again) == 3
    kept = [record["name"] for record in read_json_lines(tmp_path / "events.jsonl")]
    assert kept.count("record_failing") == kept.count("record_works_again") == 3


def test_flush_fails_of_a_vouched_sink_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = BadDisk(monkeypatch)
    metrics = [MetricsSink(tmp_path / name) for name in ("a", "b")]
    free, vouched = (
        Guarded(lambda sink=sink: sink, "it", "...", vouched=vouched)  # type: ignore[misc]
        for sink, vouched in zip(metrics, (False, True), strict=True)
    )
    disk.share = 1.0
    for sink in (free, vouched):
        sink.step(StepSignals(1, 3.0, 0.3), log=False)
    free.flush()
    with pytest.raises(OSError, match="Errno"):
        vouched.flush()
    with pytest.raises(OSError, match="Errno"):
        FanOut([vouched, free]).flush()
    disk.share = 0.0
    FanOut([vouched, free]).flush()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != b""


class _Broken(RecordingSink):
    def event(self, event: Event) -> None:
        if event.kind == "anomaly":
            raise PermissionError(13, "Permission denied")
        super().event(event)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        raise ValueError("a bug of ours")


def test_guard_passes_errors_on_that_are_no_disks() -> None:
    guarded = Guarded(_Broken, "it", "...")
    guarded.event(Event(3, "anomaly", "x", "y"))
    assert [note.name for note in guarded.take_notes()] == ["record_failing"]
    with pytest.raises(ValueError, match="bug"):
        guarded.scalars(3, {})


def test_sink_that_cannot_be_opened_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("minigpt.training_monitor.sinks.guarded.time.monotonic", lambda: now[0])
    blocked = tmp_path / "run"
    blocked.write_text("a file where the folder is to be")
    sinks = FanOut([told := RecordingSink(), *folder_sinks(blocked, 0)])
    sinks.step(StepSignals(1, 3.0, 0.3), log=False)
    assert len([event for event in told.events if event.name == "record_failing"]) >= 2
    blocked.unlink()
    now[0] = 100.0
    sinks.step(StepSignals(2, 3.0, 0.3), log=False)
    sinks.flush()
    assert [record["step"] for record in read_json_lines(blocked / "metrics.jsonl")] == [2]
    assert {event.name for event in told.events} == {"record_failing", "record_works_again"}
    sinks.close()


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file")]
)
def test_console_that_is_gone_stops_nothing(error: Exception) -> None:
    def write(text: str) -> None:
        raise error

    told = RecordingSink()
    sinks = FanOut([Guarded(lambda: ConsoleSink(write), "the terminal", "the log has it"), told])
    for step in (10, 20):
        sinks.step(StepSignals(step, 3.0, 0.3), log=True)
    assert [event.step for event in told.events] == [10]
    assert "the terminal cannot be written" in told.events[0].text


def test_console_that_knows_only_ascii_gets_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    sink = ConsoleSink(lambda text: lines.append(text.encode("ascii").decode()))
    sink.event(Event(1, "anomaly", "nan_loss", "⚠️ 梯度", interrupts=True))
    assert lines == ["\\u26a0\\ufe0f \\u68af\\u5ea6"]
    assert sink.trouble is None


def test_names_that_are_no_utf_8_reach_every_record(tmp_path: Path) -> None:
    sinks = FanOut(folder_sinks(tmp_path, 0))
    sinks.event(Event(1, "note", "x", "document \udce9.txt", True))
    sinks.close()
    (record,) = read_json_lines(tmp_path / "events.jsonl")
    assert record["text"] == "document \udce9.txt"


PROGRAM = """
import subprocess, sys
from pathlib import Path
import torch
from minigpt.training_monitor.facade import LoopMonitor

def mount(*options):
    subprocess.run(["mount", *options, str(folder)], check=True)

folder = Path(sys.argv[1])
mount("-t", "tmpfs", "-o", "size=16k", "tmpfs")
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
monitor = LoopMonitor(model, optimizer, folder=folder)
for step in range(300):
    model(torch.ones(2, 4)).square().mean().backward()
    monitor.step(1.0)
    optimizer.step()
    optimizer.zero_grad()
full = (folder / "metrics.jsonl").read_bytes()
assert full.endswith(b"}\\n"), full[-30:]
mount("-o", "remount,size=8m")
monitor.close()
steps = [line.split(b",")[0] for line in (folder / "metrics.jsonl").read_bytes().splitlines()]
assert steps == [b'{"step": %d' % step for step in range(1, 301)], len(steps)
print("whole")
"""


def test_a_strangers_training_goes_on_when_a_real_disk_is_full(tmp_path: Path) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs user namespaces")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", PROGRAM, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("whole\n")
    assert done.stdout.count("metrics.jsonl cannot be written: No space left on device") == 1


def test_loop_monitor_takes_any_sink_whose_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk = BadDisk(monkeypatch)
    model = torch.nn.Linear(2, 1)
    monitor = LoopMonitor(model, sinks=[MetricsSink(tmp_path / "metrics.jsonl")])
    disk.share = 1.0
    for _ in range(3):
        model(torch.ones(1, 2)).sum().backward()
        monitor.step(1.0)
    json.dumps(monitor.state_dict())
    monitor.close()
