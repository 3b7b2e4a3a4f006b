"""gradient_vanishing on the users' own series, on denser and other ones."""

import math

import pytest

from minigpt.training_monitor.config import MonitorConfig, VanishingConfig
from minigpt.training_monitor.monitor import TrainingMonitor
from tests.training_monitor.monitor_series import DIP, decline, findings_of, healthy


def told(series: list[tuple[int, float, float]], **rule: float) -> list[tuple[str, str, int, bool]]:
    config = MonitorConfig(gradient_vanishing=VanishingConfig(**rule))  # type: ignore[arg-type]
    found = findings_of(TrainingMonitor(config), series)
    return [(finding.name, finding.status, finding.step, finding.interrupts) for finding in found]


def test_vanishing_is_a_transient_event_when_the_users_series_dips_once() -> None:
    monitor = TrainingMonitor()
    found = findings_of(monitor, DIP)
    assert [(finding.status, finding.step) for finding in found] == [("suspected", 14), ("transient", 15)]
    assert found[1].length == 1
    assert not any(finding.interrupts for finding in found)
    assert monitor.open_findings == {}


def test_vanishing_stays_an_event_when_the_users_decline_ends_before_first_step() -> None:
    assert told(decline(10)) == [("gradient_vanishing", "suspected", 30, False)]


def test_vanishing_is_sustained_when_the_users_decline_lies_past_first_step() -> None:
    expected = [
        ("gradient_vanishing", "suspected", 130, False),
        ("gradient_vanishing", "sustained", 150, True),
    ]
    assert told(decline(110)) == expected


def test_vanishing_is_sustained_when_first_step_is_lowered() -> None:
    expected = [("gradient_vanishing", "suspected", 30, False), ("gradient_vanishing", "sustained", 50, True)]
    assert told(decline(10), first_step=10) == expected


def test_vanishing_waits_for_first_step_when_the_decline_lasts_from_before() -> None:
    series = decline(10) + [(step, 8.2342, 1e-6) for step in range(60, 121, 10)]
    assert told(series)[-1] == ("gradient_vanishing", "sustained", 100, True)


def test_vanishing_stays_silent_when_the_same_norms_fall_with_the_loss() -> None:
    series = [(110 + 10 * i, 8.0 * 10.0**-i, 10.0 ** -(i + 2)) for i in range(5)]
    assert not any(interrupts for *_, interrupts in told(series))


def dense(loss_after: float, norm_after: float = 3e-3) -> list[tuple[int, float, float]]:
    """500 healthy steps, then a lasting drop to 1/100 of the norm."""
    before = list(healthy(500, 1, loss_at=lambda step: 3.0))
    return before + [(step, loss_after, norm_after) for step in range(501, 531)]


def test_vanishing_is_sustained_after_persist_steps_when_the_norm_drops_for_good() -> None:
    assert told(dense(3.0)) == [
        ("gradient_vanishing", "suspected", 501, False),
        ("gradient_vanishing", "sustained", 515, True),
    ]


def test_vanishing_is_resolved_when_the_norm_has_recovered_for_close_steps() -> None:
    series = dense(3.0) + [(step, 3.0, 0.3) for step in range(531, 551)]
    assert told(series)[-1] == ("gradient_vanishing", "resolved", 546, False)


def test_vanishing_is_found_when_a_dense_norm_decays_geometrically() -> None:
    before = list(healthy(300, 2, loss_at=lambda step: 3.0))
    after = [(300 + i, 3.0, 0.3 * 0.85**i) for i in range(1, 80)]
    steps = [step for _, status, step, interrupts in told(before + after) if interrupts]
    assert len(steps) == 1
    assert 315 <= steps[0] <= 345


def test_vanishing_is_found_when_the_norm_is_tiny_from_the_first_step_and_nothing_is_learnt() -> None:
    series = [(step, 9.01, 1e-9) for step in range(1, 130)]
    assert told(series)[-1] == ("gradient_vanishing", "sustained", 100, True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_vanishing_ignores_the_step_when_its_norm_is_not_finite(bad: float) -> None:
    series = [*DIP[:5], (15, 8.0, bad), (16, bad, 1e-9), (17, 7.9, 2e-4)]
    found = [entry for entry in told(series) if entry[0] == "gradient_vanishing"]
    assert [(status, step) for _, status, step, _ in found] == [("suspected", 14), ("transient", 17)]


def test_vanishing_uses_the_floor_of_the_config_when_it_is_lowered() -> None:
    assert told(DIP, floor=1e-8) == []


@pytest.mark.parametrize(("growth", "interrupts"), [(1.0, True), (1.006, True), (1.012, False)])
def test_vanishing_does_not_interrupt_when_the_norm_of_a_slow_start_comes_back(
    growth: float, interrupts: bool
) -> None:
    """The gradients of the first guess fall off in the warm-up, and come back as the model begins to learn."""
    start = [(step, 5.8, 0.7 * 0.9**step) for step in range(1, 26)]
    later = [(step, 5.8 - 0.0005 * (step - 25), 0.05 * growth ** (step - 25)) for step in range(26, 140)]
    assert any(found[3] for found in told(start + later)) is interrupts


@pytest.mark.parametrize(("lowest", "interrupts"), [(0.4, True), (-0.4, False)])
def test_vanishing_is_judged_by_the_loss_only_when_that_has_a_floor(lowest: float, interrupts: bool) -> None:
    """A hinge or an adversary's loss may be negative: it need not fall for the training to go well."""
    before = [(step, lowest if step % 7 == 0 else 0.5, 0.3) for step in range(1, 300)]
    after = [(step, 0.5, 0.002) for step in range(300, 400)]
    assert any(found[3] for found in told(before + after)) is interrupts
