"""TensorBoard files come in the order of their making, whatever the clock says."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.tensorboard import TensorBoardSink

YEARS = 10 * 365 * 86_400
NOW = 1_800_000_000.0


def session(folder: Path, first: int, last: int, value: float) -> str:
    before = set(folder.iterdir()) if folder.exists() else set()
    sink = TensorBoardSink(folder, keep_through=first - 1)
    for step in range(first, last + 1):
        sink.step(StepSignals(step, value, 0.3), log=False)
    sink.close()
    (new,) = set(folder.iterdir()) - before
    return new.name


@pytest.mark.parametrize(
    "clocks",
    [
        (NOW, NOW, NOW, NOW),
        (NOW, NOW + YEARS, NOW - YEARS, NOW),
        (NOW, NOW - 3600, NOW - 7200, NOW - 3600.5),
        (NOW, 0.0, -5.0, 1e12),
        (1e10, 1e9, 1e11, 5.0),
    ],
)
def test_resumed_curves_show_every_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocks: tuple[float, ...]
) -> None:
    names = []
    for number, clock in enumerate(clocks):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        names.append(session(tmp_path, 1 + 10 * number, 17 + 10 * number, float(number)))
    assert names == sorted(names)
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    reader.Reload()
    last = len(clocks) - 1
    shown = [(scalar.step, scalar.value) for scalar in reader.Scalars("train/loss")]
    assert shown == [(step, float(min((step - 1) // 10, last))) for step in range(1, 18 + 10 * last)]


def test_time_axis_has_no_kink_when_the_clock_jumps_in_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = TensorBoardSink(tmp_path)
    for step, clock in enumerate((NOW, NOW + YEARS, NOW - YEARS), start=1):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        sink.step(StepSignals(step, 1.0, 0.3), log=False)
    sink.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    times = [scalar.wall_time for scalar in reader.Scalars("train/loss")]
    assert times == sorted(times)
    assert times[-1] - times[0] < 3600


def test_name_comes_after_older_ones_of_any_host_and_passes_over_foreign_ones(tmp_path: Path) -> None:
    tmp_path.joinpath("events.out.tfevents.2222222222.zzz.9.0").write_bytes(b"")
    tmp_path.joinpath("events.out.tfevents.profile-empty").write_bytes(b"")
    name = session(tmp_path, 1, 2, 1.0)
    assert name.startswith("events.out.tfevents.2222222223.")
