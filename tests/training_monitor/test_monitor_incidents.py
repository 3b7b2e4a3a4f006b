"""Merging: one incident is told once, and again only for a better explanation."""

import json
from math import nan

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.finding import Finding, Status
from minigpt.training_monitor.incidents import IncidentBook
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.signals import StepSignals


def finding(name: str, step: int, status: Status = "sustained", *, opened_at: int | None = None) -> Finding:
    started = step if opened_at is None else opened_at
    return Finding(name, status, started, step, step - started + 1, status in ("suspected", "sustained"))


def test_look_is_due_sooner_when_something_young_is_open() -> None:
    monitor = TrainingMonitor(MonitorConfig(look_every_steps=50, look_every_steps_on_suspicion=10))
    assert [step for step in range(1, 101) if monitor.look_is_due(step)] == [50, 100]
    for step in range(1, 62):
        monitor.observe(StepSignals(step, 3.0 if step < 60 else nan, 1.0))
    assert [step for step in range(62, 200) if monitor.look_is_due(step)] == [70, 80, 90, 100, 110, 120, 150]
    off = TrainingMonitor(MonitorConfig(look_every_steps=None))
    assert not any(off.look_is_due(step) for step in range(200))


def told(book: IncidentBook, *findings: Finding) -> list[tuple[str, int, bool]]:
    return [(entered.name, case.number, entered.interrupts) for entered, case in book.enter(findings)]


def test_incident_tells_a_symptom_once_when_its_cause_was_told() -> None:
    book = IncidentBook()
    assert told(book, finding("label_mismatch", 100)) == [("label_mismatch", 1, True)]
    assert told(book, finding("loss_spike", 108)) == [("loss_spike", 1, False)]
    assert told(book, finding("loss_divergence", 150)) == [("loss_divergence", 1, False)]


def test_incident_tells_again_when_a_better_explanation_joins() -> None:
    book = IncidentBook()
    assert told(book, finding("loss_spike", 100)) == [("loss_spike", 1, True)]
    assert told(book, finding("update_ratio_high", 103)) == [("update_ratio_high", 1, True)]
    assert told(book, finding("loss_divergence", 110)) == [("loss_divergence", 1, False)]


def test_incident_tells_the_best_explanation_of_one_step_only() -> None:
    book = IncidentBook()
    assert told(book, finding("loss_spike", 9), finding("weight_jump", 9)) == [
        ("weight_jump", 1, True),
        ("loss_spike", 1, False),
    ]


def test_incident_tells_lost_updates_whatever_explains_them() -> None:
    book = IncidentBook()
    told(book, finding("weight_jump", 50))
    assert told(book, finding("nan_loss", 51, "suspected")) == [("nan_loss", 1, True)]
    assert told(book, finding("nan_loss", 53, opened_at=51)) == [("nan_loss", 1, True)]
    assert told(book, finding("nan_loss", 54, opened_at=51)) == [("nan_loss", 1, False)]


def test_incident_is_another_one_when_much_later_though_the_first_is_still_open() -> None:
    book = IncidentBook()
    assert told(book, finding("missing_gradient", 10)) == [("missing_gradient", 1, True)]
    assert told(book, finding("loss_spike", 500)) == [("loss_spike", 2, True)]
    assert told(book, finding("missing_gradient", 520, "resolved", opened_at=10)) == [
        ("missing_gradient", 1, False)
    ]


def test_incident_book_goes_on_where_it_was_when_restored() -> None:
    book, other = IncidentBook(), IncidentBook()
    told(book, finding("loss_spike", 100), finding("missing_gradient", 101))
    other.load_state_dict(json.loads(json.dumps(book.state_dict())))
    later = finding("gradient_exploding", 120)
    assert told(book, later) == told(other, later) == [("gradient_exploding", 1, False)]
    assert book.state_dict() == other.state_dict()


def test_incident_keeps_the_order_of_what_one_rule_says_at_one_step() -> None:
    book = IncidentBook()
    opening = Finding("update_ratio_high", "suspected", 5, 5, 1, False)
    lasting = Finding("update_ratio_high", "sustained", 5, 5, 1, True)
    entered = [one.status for one, _ in book.enter([finding("loss_spike", 5), opening, lasting])]
    assert entered == ["suspected", "sustained", "sustained"]


def test_incident_tells_no_scaler_trouble_when_the_loss_was_nan_before() -> None:
    book = IncidentBook()
    assert told(book, finding("nan_loss", 100)) == [("nan_loss", 1, True)]
    assert told(book, finding("scale_collapse", 116)) == [("scale_collapse", 1, False)]
    assert told(IncidentBook(), finding("scale_collapse", 116)) == [("scale_collapse", 1, True)]
