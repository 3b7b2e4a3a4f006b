"""The verdict on recorded runs: healthy, watch or sick, and the report that says why."""

import json
import math
import re
from pathlib import Path

import pytest

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.records.registry import open_record
from minigpt.training_monitor.report.curve import Curve
from minigpt.training_monitor.report.histogram import LogHistogram
from minigpt.training_monitor.report.plain import plain
from minigpt.training_monitor.report.summary import phases_of
from minigpt.training_monitor.report.text import report_lines
from minigpt.training_monitor.report.words import CHINESE, ENGLISH
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.verdict import Verdict, judge
from tests.training_monitor.monitor_series import DIP, Triple, decline, healthy
from tests.training_monitor.record_files import (
    write_lightning_csv,
    write_log,
    write_metrics,
    write_trainer_state,
)


def judged(path: Path, language: str = "en") -> tuple[Verdict, str]:
    verdict = judge(open_record(path), MonitorConfig(language="zh" if language == "zh" else "en"))
    return verdict, "\n".join(report_lines(verdict, language))


def keys(verdict: Verdict) -> list[str]:
    return [reason.key for reason in verdict.reasons]


def test_the_users_dip_is_healthy(tmp_path: Path) -> None:
    verdict, text = judged(write_log(tmp_path / "training.log", DIP))
    assert (verdict.health, verdict.exit_code) == ("healthy", 0)
    assert "transient" in text
    assert "What to do" not in text


@pytest.mark.parametrize("first", [10, 110])
def test_the_users_decline_is_sick_also_when_the_record_ends_within_the_rules_patience(
    tmp_path: Path, first: int
) -> None:
    verdict, text = judged(write_log(tmp_path / "training.log", decline(first)))
    assert (verdict.health, verdict.exit_code) == ("sick", 4)
    assert keys(verdict) == ["open_at_end"]
    assert f"Anomaly detected at step {first + 40}: gradient_vanishing" in text
    assert "one step in 10 is recorded" in text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_run_is_healthy_in_every_format(tmp_path: Path, seed: int) -> None:
    series = list(healthy(300, seed))
    paths = [
        write_metrics(tmp_path / "metrics.jsonl", series),
        write_log(tmp_path / "training.log", series[9::10]),
        write_trainer_state(tmp_path / "hf" / "trainer_state.json", series),
        write_lightning_csv(tmp_path / "lit" / "metrics.csv", series),
    ]
    for path in paths:
        verdict, text = judged(path)
        assert verdict.health == "healthy", text
        assert "nothing that deserves attention" in text


def test_a_run_that_ends_in_nan_is_sick(tmp_path: Path) -> None:
    series = [*healthy(100, 1), *((step, math.nan, math.nan) for step in range(101, 104))]
    verdict, text = judged(write_metrics(tmp_path / "metrics.jsonl", series))
    assert verdict.health == "sick"
    assert "nan_loss since step 101, and the record ends in it (step 103)" in text
    assert "✗" in text


def test_nan_norms_that_hugging_face_hides_in_the_loss_are_sick(tmp_path: Path) -> None:
    series = [*healthy(60, 1), *((step, 0.0, math.nan) for step in range(61, 70))]
    verdict, text = judged(write_trainer_state(tmp_path / "trainer_state.json", series))
    assert verdict.health == "sick"
    assert "logging_nan_inf_filter" in text


def test_trouble_that_passed_asks_to_watch(tmp_path: Path) -> None:
    series = [
        (step, math.nan, math.nan) if 60 <= step < 64 else (step, loss, norm)
        for step, loss, norm in healthy(300, 1)
    ]
    verdict, _ = judged(write_metrics(tmp_path / "metrics.jsonl", series))
    assert (verdict.health, verdict.exit_code) == ("watch", 3)
    assert keys(verdict) == ["resolved"]


def test_a_run_that_ends_above_where_it_began_is_sick_however_slowly_it_got_there(tmp_path: Path) -> None:
    series = [(step, 3 * 1.001**step, 1.0) for step in range(1, 401)]
    verdict, _ = judged(write_metrics(tmp_path / "metrics.jsonl", series))
    assert verdict.health == "sick"
    assert "above_start" in keys(verdict)


def test_a_run_that_lost_what_it_had_reached_asks_to_watch(tmp_path: Path) -> None:
    series = [(step, 3 + 0.015 * abs(step - 200), 1.0) for step in range(1, 351)]
    verdict, _ = judged(write_log(tmp_path / "training.log", series))
    assert verdict.health in ("watch", "sick")
    assert "worse_than_before" in keys(verdict) or "open_at_end" in keys(verdict)


def test_small_gradients_under_which_the_loss_fell_on_are_no_sickness(tmp_path: Path) -> None:
    # One step in 500: a window of five points cannot tell slow learning from none, the whole record can.
    series = [(500 * step, loss, norm) for step, loss, norm in healthy(400, 3, norm_noise=0.2)]
    verdict, _ = judged(write_trainer_state(tmp_path / "trainer_state.json", series, logging_steps=500))
    assert verdict.health != "sick"


def test_the_steps_of_lasting_trouble_do_not_widen_the_band(tmp_path: Path) -> None:
    calm = list(healthy(400, 1, norm_at=lambda step: 1.0))
    wild = [(step, loss, norm * (1000 if 200 <= step < 230 else 1)) for step, loss, norm in calm]
    verdict, _ = judged(write_metrics(tmp_path / "metrics.jsonl", wild))
    middle = next(phase for phase in verdict.summary.phases if phase.name == "middle")
    band = middle.band()
    assert band is not None
    assert 0.5 < band[0] < band[1] < band[2] < 2000
    assert middle.norms.count < middle.count


def test_what_the_run_said_of_signals_that_its_record_lacks_counts(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", healthy(100, 1))
    data = {"status": "suspected", "opened_at": 50, "length": 1, "evidence": {}, "incident": 1, "cause": "c"}
    event = {
        "step": 50,
        "kind": "anomaly",
        "name": "weight_jump",
        "text": "⚠️ Anomaly detected at step 50: weight_jump\n   Seen: x",
        "interrupts": True,
        "data": data,
    }
    (tmp_path / "events.jsonl").write_text(json.dumps(event), encoding="utf-8")
    verdict, text = judged(tmp_path)
    assert verdict.health == "sick"
    assert "Judged while the run was on" in text
    assert "weight_jump at step 50: what must always hold did not" in text
    assert "(said while it ran)" in text


def test_a_plateau_is_told_by_the_run_that_knew_the_frequencies_and_not_again_by_its_record(
    tmp_path: Path,
) -> None:
    stuck = [(step, 5.5, norm) for step, _, norm in healthy(300, 1)]
    write_metrics(tmp_path / "metrics.jsonl", stuck)
    data = {
        "status": "sustained",
        "opened_at": 200,
        "length": 100,
        "evidence": {},
        "incident": 1,
        "cause": "c",
    }
    event = {
        "step": 300,
        "kind": "anomaly",
        "name": "loss_plateau",
        "text": "⚠️ Anomaly detected at step 200: loss_plateau\n   Seen: x",
        "interrupts": True,
        "data": data,
    }
    (tmp_path / "events.jsonl").write_text(json.dumps(event), encoding="utf-8")
    verdict, _ = judged(tmp_path)
    assert [(reason.key, reason.values["name"]) for reason in verdict.reasons] == [
        ("open_at_end", "loss_plateau")
    ]


def test_a_run_that_its_monitor_stopped_is_sick(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.jsonl", healthy(50, 1))
    event = {"step": 50, "kind": "action", "name": "stop", "text": "too many skips", "data": {}}
    (tmp_path / "events.jsonl").write_text(json.dumps(event), encoding="utf-8")
    verdict, text = judged(tmp_path)
    assert keys(verdict) == ["stopped"]
    assert "stopped by the monitor" in text


def test_what_a_record_cannot_show_is_said(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{step},{loss}" for step, loss, _ in healthy(50, 1)]
    path.write_text("\n".join(["step,loss", *rows]), encoding="utf-8")
    verdict, text = judged(path)
    assert verdict.health == "healthy"
    assert re.search(r"gradient norm +gradient_vanishing, gradient_exploding", text)
    lost = {name for group in verdict.not_judged for name in group.findings}
    assert lost >= {name for rule in RULES.values() if "grad_norm" in rule.needs for name in rule.findings}


def test_a_norm_without_loss_is_judged_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{step},{norm * (1000 if step > 90 else 1)}" for step, _, norm in healthy(120, 1)]
    path.write_text("\n".join(["step,grad_norm", *rows]), encoding="utf-8")
    verdict, text = judged(path)
    assert verdict.health == "sick"
    assert "no loss in this record" in text
    assert verdict.summary.last_loss is None


def test_steps_without_a_norm_among_others_raise_no_alarm(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{step},{loss},{norm if step % 10 == 0 else ''}" for step, loss, norm in healthy(400, 1)]
    path.write_text("\n".join(["step,loss,grad_norm", *rows]), encoding="utf-8")
    verdict, _ = judged(path)
    assert verdict.health == "healthy"
    assert not verdict.episodes.all


def test_the_report_is_chinese_when_asked(tmp_path: Path) -> None:
    _, text = judged(write_log(tmp_path / "training.log", decline(110)), "zh")
    assert "结论：异常" in text
    assert "时间线" in text


def test_both_languages_have_the_same_sentences() -> None:
    assert ENGLISH.keys() == CHINESE.keys()


def test_the_plain_verdict_is_json_even_with_nan(tmp_path: Path) -> None:
    series: list[Triple] = [*healthy(40, 1), (41, math.nan, math.inf)]
    verdict, _ = judged(write_metrics(tmp_path / "metrics.jsonl", series))
    values = json.loads(json.dumps(plain(verdict, "en"), allow_nan=False))
    assert (values["verdict"], values["exit_code"]) == ("sick", 4)
    assert values["loss"]["last"] == "NaN"
    assert values["findings"][0]["name"] == "nan_loss"
    assert values["phases"][0]["grad_norm"]["median"] > 0


def test_the_runs_own_rules_are_used(tmp_path: Path) -> None:
    path = write_log(tmp_path / "training.log", decline(110))
    config = MonitorConfig()
    off = type(config)(gradient_vanishing=type(config.gradient_vanishing)(enabled=False))
    verdict = judge(open_record(path), off, RunFacts(warmup_steps=5))
    assert verdict.health == "healthy"
    assert any(not group.missing and "gradient_vanishing" in group.findings for group in verdict.not_judged)


def test_phases_cover_every_step_once() -> None:
    for first, last, count, warmup in [
        (1, 1000, 1000, 100),
        (10, 5000, 500, None),
        (1, 40, 40, 60),
        (0, 5, 6, 2),
    ]:
        phases = phases_of(first, last, count, warmup)
        assert phases[0].first == first
        assert phases[-1].last == last
        assert [phase.first for phase in phases[1:]] == [phase.last + 1 for phase in phases[:-1]]
    names = [phase.name for phase in phases_of(1, 1000, 1000, 100)]
    assert names == ["start", "warmup", "early", "middle", "late"]


def test_quantiles_of_a_stream_are_those_of_the_numbers() -> None:
    histogram = LogHistogram()
    for value in [*range(1, 101), math.nan, math.inf, 0.0]:
        histogram.add(float(value))
    assert histogram.count == 100
    assert histogram.quantile(0.5) == pytest.approx(50.5, rel=0.02)
    assert histogram.quantile(0.95) == pytest.approx(95, rel=0.02)
    assert LogHistogram().quantile(0.5) is None


def test_a_curve_shows_its_course_and_marks_what_is_no_number() -> None:
    curve = Curve(1, 60)
    for step in range(1, 61):
        curve.add(step, math.nan if step == 60 else 2.0**step)
    line = curve.line()
    assert len(line) == 60
    assert (line[0], line[-2], line[-1]) == ("▁", "█", "✗")


@pytest.mark.parametrize(("rate", "health"), [(3.0, "watch"), (1e-12, "watch"), (5e-5, "healthy")])
def test_a_loss_that_stands_still_is_worth_watching_when_the_learning_rate_is_absurd(
    tmp_path: Path, rate: float, health: str
) -> None:
    series = healthy(60, 1, loss_at=lambda step: 7.6, norm_at=lambda step: 1.0)
    path = write_trainer_state(tmp_path / "trainer_state.json", series)
    path.write_text(path.read_text().replace("4.5e-05", repr(rate)))
    verdict, text = judged(path)
    assert verdict.health == health
    assert (keys(verdict) == ["absurd_rate"]) == (health == "watch")
    assert ("nothing trains" in text) == (health == "watch")


def test_an_unusual_learning_rate_is_no_matter_when_the_loss_comes_down(tmp_path: Path) -> None:
    path = write_trainer_state(tmp_path / "trainer_state.json", healthy(300, 1))
    path.write_text(path.read_text().replace("4.5e-05", "3.0"))
    assert judged(path)[0].health == "healthy"
