"""nan_loss, non_finite_gradient, the fp16 scaler's calibration and the budget of skipped updates."""

import math
from dataclasses import replace

import pytest

from minigpt.training_monitor.action import Action, Continue, SkipUpdate, Stop
from minigpt.training_monitor.config import MonitorConfig, NonFiniteConfig, PolicyConfig
from minigpt.training_monitor.detectors.non_finite import NonFinite
from minigpt.training_monitor.monitor import Observation, TrainingMonitor
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import changed, healthy_step


def good(step: int, scale: float | None = None) -> StepSignals:
    groups = {"embedding": 0.2, "blocks.0": 0.2, "blocks.1": 0.1, "head": 0.1}
    return StepSignals(step, 3.0, 0.3, group_norms=groups, scaler_scale=scale)


def bad(step: int, loss: float = 3.0, norm: float = math.inf, scale: float | None = None) -> StepSignals:
    groups = {"embedding": norm, "blocks.0": norm, "blocks.1": math.nan, "head": 0.1}
    overflow = scale is not None
    return StepSignals(
        step,
        loss,
        norm,
        group_norms=groups,
        update_skipped=True,
        scaler_scale=scale,
        scaler_overflow=overflow,
    )


def run(signals: list[StepSignals], config: MonitorConfig | None = None) -> list[Observation]:
    monitor = TrainingMonitor(config)
    return [monitor.observe(each) for each in signals]


def actions(observations: list[Observation]) -> list[type[Action]]:
    return [type(observation.action) for observation in observations]


def test_nan_loss_interrupts_at_once_and_blames_no_group_when_weights_are_finite() -> None:
    observation = run([good(1), bad(2, loss=math.nan, norm=math.nan)])[1]
    (finding,) = observation.findings
    assert (finding.name, finding.status, finding.interrupts) == ("nan_loss", "suspected", True)
    assert "group" not in finding.evidence
    assert observation.events[0].text.startswith("⚠️ Anomaly detected at step 2: nan_loss\n")


def test_nan_loss_names_the_first_group_when_weights_are_not_finite() -> None:
    weights = {"embedding": 1.0, "blocks.0": math.nan, "blocks.1": math.nan}
    observation = run([replace(bad(1, loss=math.nan, norm=math.nan), weight_norms=weights)])[0]
    assert observation.findings[0].evidence["group"] == "blocks.0"
    assert observation.findings[0].evidence["trigger"] == "weights"


def test_non_finite_gradient_names_the_parameter_nearest_the_output() -> None:
    detector = NonFinite(NonFiniteConfig())
    below = ("embedding", "blocks.0", "blocks.1.norm", "blocks.1.query")
    (finding,) = detector.observe(changed(healthy_step(1), below, grad_norms=math.nan))
    assert finding.evidence["parameter"] == "blocks.1.query.weight"
    assert (finding.evidence["group"], finding.evidence["count"]) == ("blocks.1", 6)


def test_non_finite_gradient_is_named_when_the_loss_is_finite() -> None:
    observations = run([good(1), bad(2), good(3)])
    names = [(finding.name, finding.status) for each in observations for finding in each.findings]
    assert observations[1].findings[0].evidence["group"] == "blocks.1"
    assert names == [("non_finite_gradient", "suspected"), ("non_finite_gradient", "transient")]
    assert actions(observations) == [Continue, SkipUpdate, Continue]


def test_non_finite_is_sustained_when_it_lasts_and_resolved_after_close_steps() -> None:
    signals = [bad(step) for step in range(1, 4)] + [good(step) for step in range(4, 30)]
    observations = run(signals)
    statuses = [(finding.status, finding.step) for each in observations for finding in each.findings]
    assert statuses == [("suspected", 1), ("sustained", 3), ("resolved", 19)]


def test_scaler_calibration_is_silent_and_costs_nothing_when_it_succeeds_in_time() -> None:
    scale = 2.0**26
    signals = [bad(step, scale=scale / 2**step) for step in range(1, 25)]
    observations = run([*signals, good(25, scale=2.0)])
    assert set(actions(observations)) == {Continue}
    assert not any(each.findings for each in observations)


def test_scaler_speaks_and_stops_at_the_25th_overflow_before_a_first_success() -> None:
    observations = run([bad(step, scale=2.0 ** (40 - step)) for step in range(1, 30)])
    told = [each.findings[0].step for each in observations if each.findings]
    assert told[0] == 25
    assert actions(observations)[23:29] == [Continue, *([SkipUpdate] * 4), Stop]


def test_scaler_speaks_and_stops_when_its_scale_never_moves() -> None:
    observations = run([good(1, scale=8.0), *(bad(step, scale=8.0) for step in range(2, 12))])
    told = [each.findings[0] for each in observations if each.findings]
    assert (told[0].step, told[0].name) == (5, "overflow_streak")
    assert actions(observations)[3:9] == [Continue, *([SkipUpdate] * 4), Stop]


def test_scaler_costs_nothing_when_it_overflows_now_and_then() -> None:
    signals = [bad(step, scale=65536.0) if step % 20 == 0 else good(step, 65536.0) for step in range(1, 2000)]
    assert set(actions(run(signals))) == {Continue}


def test_nan_loss_counts_when_a_scaler_is_calibrating() -> None:
    observation = run([bad(1, loss=math.nan, norm=math.nan, scale=65536.0)])[0]
    assert observation.findings[0].name == "nan_loss"
    assert isinstance(observation.action, SkipUpdate)


def test_policy_stops_at_the_fifth_skip_in_a_row() -> None:
    observations = run([bad(step, loss=math.nan) for step in range(1, 6)])
    assert actions(observations) == [SkipUpdate] * 4 + [Stop]
    action = observations[-1].action
    assert isinstance(action, Stop)
    assert (action.step, action.cause) == (5, "nan_loss")
    assert action.reason == "5 updates in a row had to be skipped (nan_loss)"


def test_policy_stops_when_more_than_two_percent_of_250_are_skipped() -> None:
    observations = run([bad(step) if step % 30 == 0 else good(step) for step in range(1, 181)])
    assert actions(observations)[149] is SkipUpdate
    assert actions(observations)[179] is Stop


def test_policy_forgets_skips_when_they_are_older_than_its_window() -> None:
    observations = run([bad(step) if step % 60 == 0 else good(step) for step in range(1, 3000)])
    assert Stop not in actions(observations)


def test_policy_only_says_so_when_stopping_is_off() -> None:
    config = MonitorConfig(policy=PolicyConfig(stop_when_budget_spent=False))
    assert Stop not in actions(run([bad(step) for step in range(1, 30)], config))


def test_policy_works_when_the_rule_is_switched_off() -> None:
    config = MonitorConfig(non_finite=NonFiniteConfig(enabled=False))
    observations = run([bad(step) for step in range(1, 6)], config)
    assert not any(each.findings for each in observations)
    assert isinstance(observations[-1].action, Stop)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_stop_is_an_interrupting_event_in_the_users_language(language: str) -> None:
    config = MonitorConfig(language=language)  # type: ignore[arg-type]
    event = run([bad(step) for step in range(1, 6)], config)[-1].events[-1]
    assert (event.kind, event.name, event.interrupts) == ("action", "stop", True)
    assert ("跳过" in event.text) == (language == "zh")
