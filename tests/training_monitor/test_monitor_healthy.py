"""Tricky but healthy runs: not one interrupting finding."""

import math
import random
from collections.abc import Callable, Iterator

import pytest

from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.run_facts import RunFacts
from tests.training_monitor.monitor_series import Triple, findings_of, healthy

STEPS = 2500
Run = Callable[[int], Iterator[Triple]]


def memorising(seed: int) -> Iterator[Triple]:
    """A tiny data set: the loss goes to nothing, and the gradients with it."""
    for step, loss, norm in healthy(STEPS, seed, loss_at=lambda step: 1e-3 + 10 * math.exp(-step / 100)):
        yield step, loss, norm * loss / 10


def restarting(seed: int) -> Iterator[Triple]:
    """Every 500 steps the learning rate restarts: loss and norm go up and come back."""
    for step, loss, norm in healthy(STEPS, seed):
        wake = math.exp(-(step % 500) / 50)
        yield step, loss * (1 + 0.03 * wake), norm * (1 + 0.8 * wake)


def easier_data(seed: int) -> Iterator[Triple]:
    """The mixture changes to easier text half-way."""
    for step, loss, norm in healthy(STEPS, seed):
        yield (step, loss, norm) if step < STEPS // 2 else (step, loss * 0.6, norm * 0.4)


def dipping(seed: int) -> Iterator[Triple]:
    """Now and then one step's gradients all but vanish (a padded batch), or one batch is hard."""
    chance = random.Random(seed)
    for step, loss, norm in healthy(STEPS, seed):
        draw = chance.random()
        yield (
            step,
            loss * (1.3 if draw > 0.99 else 1),
            norm * (1e-7 if draw < 0.01 else 5 if draw > 0.99 else 1),
        )


def slow_warm_up(step: int) -> float:
    return 3 + 7 * math.exp(-step / 3000)


RUNS: dict[str, Run] = {
    "plain": lambda seed: healthy(STEPS, seed),
    "no_warm_up_drift": lambda seed: healthy(
        STEPS, seed, norm_at=lambda step: 0.3 + 20 * math.exp(-step / 8)
    ),
    "scaled_loss": lambda seed: healthy(STEPS, seed, scale=1e-7),
    "scaled_loss_and_plateau": lambda seed: healthy(
        STEPS, seed, scale=1e-7, loss_at=lambda step: 3 + 7 * math.exp(-step / 30)
    ),
    "scaled_loss_in_a_long_warm_up": lambda seed: healthy(STEPS, seed, scale=1e-8, loss_at=slow_warm_up),
    "long_warm_up": lambda seed: healthy(STEPS, seed, loss_at=slow_warm_up),
    "converged_plateau": lambda seed: healthy(STEPS, seed, loss_at=lambda step: 3.0),
    "batch_of_one": lambda seed: healthy(STEPS, seed, norm_noise=0.6, loss_noise=0.25),
    "resumed_without_state": lambda seed: healthy(STEPS, seed, first=5000),
    "scaled_and_resumed_without_state": lambda seed: healthy(STEPS, seed, first=5000, scale=1e-7),
    "decay_to_nothing": lambda seed: healthy(STEPS, seed, norm_at=lambda step: 0.5 - 0.4 * step / STEPS),
    "memorising": memorising,
    "restarting": restarting,
    "easier_data": easier_data,
    "dipping": dipping,
}


@pytest.mark.parametrize("name", RUNS)
def test_monitor_never_interrupts_when_the_run_is_healthy(name: str) -> None:
    for seed in (0, 1):
        monitor = TrainingMonitor(facts=RunFacts(warmup_steps=2000 if "warm_up" in name else 0))
        found = findings_of(monitor, RUNS[name](seed))
        assert [finding for finding in found if finding.interrupts] == []
        assert "sustained" not in monitor.open_findings.values()


@pytest.mark.parametrize("name", ["scaled_loss", "scaled_loss_in_a_long_warm_up", "dipping"])
def test_monitor_keeps_no_suspicion_open_when_the_run_is_healthy(name: str) -> None:
    monitor = TrainingMonitor(facts=RunFacts(warmup_steps=2000))
    findings_of(monitor, RUNS[name](2))
    assert monitor.open_findings == {}
