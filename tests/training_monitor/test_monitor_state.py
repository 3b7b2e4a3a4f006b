"""Resume is exact: the monitor's state is plain values, and a split sequence gives the same findings."""

import io
import math
import random
from typing import Any

import pytest
import torch

from minigpt.training_monitor.config import MonitorConfig, VanishingConfig
from minigpt.training_monitor.monitor import Observation, TrainingMonitor
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.monitor_series import healthy


def eventful() -> list[StepSignals]:
    """260 steps with NaN, overflows, spikes, dips, a decline and a plateau: every detector has work."""
    chance = random.Random(7)
    steps = []
    for step, loss, norm in healthy(260, 5, loss_at=lambda step: 3.0):
        overflow = step < 4 or step in (90, 91, 92)
        if 120 <= step < 135:
            norm *= 40
        if step >= 170:
            norm *= 0.9 ** (step - 170)
        if step in (60, 61, 62, 63):
            loss = math.nan
        if 100 <= step < 112:
            loss *= 1.5
        skipped = overflow or math.isnan(loss)
        steps.append(
            StepSignals(
                step,
                loss,
                math.inf if overflow else norm,
                group_norms={"embedding": norm * chance.random(), "blocks.0": norm},
                update_skipped=skipped,
                scaler_scale=1024.0,
                scaler_overflow=overflow,
            )
        )
    return steps


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint gives it back, by torch's safe loader."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def told(observations: list[Observation]) -> str:
    """Comparable text: NaN is not equal to itself."""
    return repr(observations)


def test_eventful_series_moves_every_detector() -> None:
    monitor = TrainingMonitor()
    names = {finding.name for step in eventful() for finding in monitor.observe(step).findings}
    assert names >= {"nan_loss", "gradient_exploding", "gradient_vanishing", "loss_spike"}


@pytest.mark.parametrize("split", [0, 1, 3, 17, 61, 91, 105, 125, 140, 185, 200, 230, 259])
def test_observe_gives_the_same_when_resumed_at_any_step(split: int) -> None:
    steps = eventful()
    whole = TrainingMonitor()
    expected = [whole.observe(step) for step in steps]
    before, after = TrainingMonitor(), TrainingMonitor()
    first = [before.observe(step) for step in steps[:split]]
    after.load_state_dict(through_a_file(before.state_dict()))
    assert told(first + [after.observe(step) for step in steps[split:]]) == told(expected)
    assert repr(after.state_dict()) == repr(whole.state_dict())


def test_state_is_a_copy_when_the_monitor_goes_on() -> None:
    monitor = TrainingMonitor()
    steps = eventful()
    for step in steps[:50]:
        monitor.observe(step)
    state = monitor.state_dict()
    before = repr(state)
    for step in steps[50:]:
        monitor.observe(step)
    assert repr(state) == before


def test_load_starts_a_rule_fresh_when_it_was_switched_off_before() -> None:
    off = MonitorConfig(gradient_vanishing=VanishingConfig(enabled=False))
    old = TrainingMonitor(off)
    for step in eventful()[:30]:
        old.observe(step)
    new = TrainingMonitor()
    new.load_state_dict(old.state_dict())
    for step in eventful()[30:60]:
        new.observe(step)


def test_disabled_monitor_says_nothing() -> None:
    monitor = TrainingMonitor(MonitorConfig(enabled=False))
    assert all(monitor.observe(step) == Observation() for step in eventful())


def test_monitor_starts_fresh_when_the_state_is_of_another_version() -> None:
    old, new = TrainingMonitor(), TrainingMonitor()
    old.observe(StepSignals(step=1, loss=4.0, grad_norm=1.0))
    fresh = repr(new.state_dict())
    new.load_state_dict({**old.state_dict(), "version": 1})
    assert repr(new.state_dict()) == fresh
