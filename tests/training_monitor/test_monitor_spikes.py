"""gradient_exploding and loss_spike: a firing, a quiet and a NaN series each."""

import math
import random

import pytest

from minigpt.training_monitor.config import ExplodingConfig, LossSpikeConfig, MonitorConfig
from minigpt.training_monitor.detectors.loss_spike import LossSpike
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import assert_resumes_exactly
from tests.training_monitor.monitor_series import Triple, findings_of, healthy, signals_of


def flat(steps: int) -> list[Triple]:
    return [(step, 3.0, 0.3) for step in range(1, steps + 1)]


def told(series: list[Triple], config: MonitorConfig | None = None) -> list[tuple[str, str, int, int, bool]]:
    found = findings_of(TrainingMonitor(config), series)
    return [
        (finding.name, finding.status, finding.step, finding.length, finding.interrupts) for finding in found
    ]


def test_exploding_is_transient_when_one_step_spikes() -> None:
    series = [*flat(50), (51, 3.0, 30.0), (52, 3.0, 0.3)]
    assert told(series) == [
        ("gradient_exploding", "suspected", 51, 1, False),
        ("gradient_exploding", "transient", 52, 1, False),
    ]


def test_exploding_is_sustained_at_the_eighth_step_in_a_row_and_resolved_later() -> None:
    series = (
        flat(50) + [(step, 3.0, 30.0) for step in range(51, 61)] + [(60 + i, 3.0, 0.3) for i in range(1, 20)]
    )
    assert told(series) == [
        ("gradient_exploding", "suspected", 51, 1, False),
        ("gradient_exploding", "sustained", 58, 8, True),
        ("gradient_exploding", "resolved", 76, 10, False),
    ]


def test_exploding_takes_the_new_level_for_normal_after_readmit_steps() -> None:
    series = flat(50) + [(step, 3.0, 30.0) for step in range(51, 201)]
    statuses = [(status, step) for _, status, step, _, _ in told(series)]
    assert statuses == [("suspected", 51), ("sustained", 58), ("resolved", 90)]


def test_vanishing_is_not_sustained_when_a_long_explosion_ends() -> None:
    series = (
        flat(200)
        + [(step, 3.0, 30.0) for step in range(201, 261)]
        + [(260 + i, 3.0, 0.3) for i in range(1, 60)]
    )
    assert [entry for entry in told(series) if entry[0] == "gradient_vanishing"] == []


def test_exploding_waits_for_first_step_when_one_is_set() -> None:
    config = MonitorConfig(gradient_exploding=ExplodingConfig(first_step=70))
    series = flat(50) + [(step, 3.0, 30.0) for step in range(51, 75)]
    assert [step for *_, step, _, interrupts in told(series, config) if interrupts] == [70]


def test_exploding_is_quiet_when_the_norm_wanders_slowly() -> None:
    series = list(healthy(3000, 3, norm_at=lambda step: 0.3 * math.exp(math.sin(step / 100))))
    assert told(series) == []


def test_exploding_names_the_group_that_rose_most() -> None:
    monitor = TrainingMonitor()
    for step in range(1, 60):
        up = 100.0 if step == 59 else 1.0
        groups = {"embedding": 0.2 * math.sqrt(up), "blocks.0": 0.1 * up, "head": 0.2}
        observation = monitor.observe(StepSignals(step, 3.0, 0.3 * up, group_norms=groups))
    assert observation.findings[0].evidence["group"] == "blocks.0"
    assert observation.findings[0].evidence["group_ratio"] == pytest.approx(100)


def test_loss_spike_is_transient_when_one_batch_is_hard() -> None:
    series = [*flat(50), (51, 4.0, 0.4), (52, 3.0, 0.3)]
    assert [entry[:3] for entry in told(series)] == [
        ("loss_spike", "suspected", 51),
        ("loss_spike", "transient", 52),
    ]


def test_loss_spike_is_sustained_when_the_loss_stays_up_and_the_norm_left_its_own_normal() -> None:
    rule = LossSpike(LossSpikeConfig(), RunFacts())
    series = signals_of(flat(50) + [(step, 4.0, 3.0) for step in range(51, 60)])
    found = [finding for signals in series for finding in rule.observe(signals)]
    assert [(finding.status, finding.step, finding.interrupts) for finding in found] == [
        ("suspected", 51, False),
        ("sustained", 58, True),
    ]
    assert found[1].evidence["trigger"] == "norm"


def test_loss_spike_is_sustained_when_a_model_that_had_learnt_does_worse_than_guessing() -> None:
    facts = RunFacts(vocab_size=64)
    rule = LossSpike(LossSpikeConfig(), facts)
    series = signals_of(flat(50) + [(step, 6.0, 0.4) for step in range(51, 60)])
    found = [finding for signals in series for finding in rule.observe(signals)]
    assert [(finding.status, finding.step) for finding in found] == [("suspected", 51), ("sustained", 58)]
    assert found[1].evidence["trigger"] == "untrained"


def test_loss_spike_never_interrupts_when_the_data_became_harder() -> None:
    series = flat(200) + [(200 + i, 3.0 + math.exp(-i / 15), 0.4) for i in range(1, 150)]
    assert [entry for entry in told(series) if entry[-1]] == []


def test_exploding_says_nothing_when_the_norm_comes_back_from_a_long_dip() -> None:
    series = (
        flat(200)
        + [(200 + i, 3.0, 0.003) for i in range(1, 70)]
        + [(269 + i, 3.0, 0.3) for i in range(1, 60)]
    )
    assert [entry for entry in told(series) if entry[0] == "gradient_exploding"] == []


def test_exploding_is_found_when_the_norm_climbs_by_a_few_percent_a_step() -> None:
    series = flat(200) + [(200 + i, 3.0, 0.3 * 1.05**i) for i in range(1, 120)]
    found = [entry for entry in told(series) if entry[0] == "gradient_exploding" and entry[-1]]
    assert len(found) == 1
    assert found[0][2] < 280


def test_exploding_tells_less_of_single_spikes_when_they_are_frequent() -> None:
    chance = random.Random(4)
    series = [(step, 3.0, 0.3 * (chance.uniform(5, 7) if step % 20 == 0 else 1.0)) for step in range(1, 600)]
    opened = [entry for entry in told(series) if entry[:2] == ("gradient_exploding", "suspected")]
    assert 3 <= len(opened) < 12


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_spikes_leave_the_baseline_alone_when_a_value_is_not_finite(bad: float) -> None:
    spoilt = [(step, loss, bad if step % 3 == 0 else norm) for step, loss, norm in flat(60)]
    series = [*spoilt, (61, 3.0, 30.0), (62, 3.0, 0.3)]
    exploding = [entry[1:3] for entry in told(series) if entry[0] == "gradient_exploding"]
    assert exploding == [("suspected", 61), ("transient", 62)]


def test_loss_spike_resumes_exactly_when_the_task_was_solved() -> None:
    """The first losses of the run say from where on noise is no spike: a resumed run must remember them."""

    def loss(step: int) -> float:
        if step == 150:
            return 3.0
        return max(5.0 * 0.9**step, 1e-4) * (10.0 if step > 100 and step % 9 == 0 else 1.0)

    series = [StepSignals(step, loss(step), 1.0) for step in range(1, 200)]
    assert_resumes_exactly(lambda: LossSpike(LossSpikeConfig(), RunFacts()), series)
