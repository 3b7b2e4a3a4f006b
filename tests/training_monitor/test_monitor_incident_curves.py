"""Incidents as curves of their own in TensorBoard."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.incident_curves import IncidentCurvesSink


def anomaly(step: int, status: str, *, opened_at: int, interrupts: bool = True, number: int = 1) -> Event:
    data = {"incident": number, "status": status, "opened_at": opened_at}
    return Event(step, "anomaly", "loss_spike", "text", interrupts, data)


def run(sink: IncidentCurvesSink, first: int, last: int, events: dict[int, Event]) -> None:
    for step in range(first, last + 1):
        sink.step(StepSignals(step, float(step), 1.0), log=False)
        if step in events:
            sink.event(events[step])


def drawn(folder: Path) -> dict[str, list[int]]:
    found = {}
    for place in sorted(folder.iterdir()):
        accumulator = EventAccumulator(str(place)).Reload()
        found[place.name] = [event.step for event in accumulator.Scalars("train/loss")]
    return found


def test_incident_is_drawn_from_its_first_bad_step_to_its_end(tmp_path: Path) -> None:
    sink = IncidentCurvesSink(tmp_path)
    run(sink, 1, 30, {17: anomaly(17, "sustained", opened_at=10), 25: anomaly(25, "resolved", opened_at=10)})
    sink.close()
    assert drawn(tmp_path) == {"incident_1_step_10_loss_spike": list(range(10, 26))}


def test_incident_is_not_drawn_when_it_disturbed_nobody(tmp_path: Path) -> None:
    sink = IncidentCurvesSink(tmp_path)
    run(sink, 1, 12, {5: anomaly(5, "suspected", opened_at=5, interrupts=False)})
    sink.close()
    assert drawn(tmp_path) == {}


def test_incidents_of_discarded_steps_are_gone_when_a_run_resumes(tmp_path: Path) -> None:
    sink = IncidentCurvesSink(tmp_path)
    later = anomaly(28, "sustained", opened_at=27, number=2)
    run(sink, 1, 30, {5: anomaly(5, "sustained", opened_at=4), 28: later})
    sink.close()
    IncidentCurvesSink(tmp_path, keep_through=20).close()
    assert list(drawn(tmp_path)) == ["incident_1_step_4_loss_spike"]


def test_resumed_incidents_are_those_of_a_run_in_one_piece(tmp_path: Path) -> None:
    events = {8: anomaly(8, "sustained", opened_at=6), 16: anomaly(16, "resolved", opened_at=6)}
    straight = IncidentCurvesSink(tmp_path / "straight")
    for folder in ("straight", "resumed"):
        (tmp_path / folder).mkdir()
    run(straight, 1, 30, events)
    straight.close()
    before = IncidentCurvesSink(tmp_path / "resumed")
    run(before, 1, 10, events)
    state = json.loads(json.dumps(before.state_dict()))
    # Discarded: what is told later of an incident that began before belongs to that other future.
    run(before, 11, 14, {12: anomaly(12, "sustained", opened_at=9, number=2)})
    before.close()
    after = IncidentCurvesSink(tmp_path / "resumed", keep_through=10)
    after.load_state_dict(state)
    run(after, 11, 30, events)
    after.close()
    assert drawn(tmp_path / "resumed") == drawn(tmp_path / "straight")
    assert list(drawn(tmp_path / "straight").values()) == [list(range(6, 17))]
