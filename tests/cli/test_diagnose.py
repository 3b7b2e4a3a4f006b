import json
import math
from pathlib import Path

import pytest

from minigpt.cli.main import USER_ERROR, run
from tests.training_monitor.monitor_series import DIP, decline, healthy
from tests.training_monitor.record_files import write_log, write_metrics


@pytest.mark.parametrize(("series", "code", "word"), [(DIP, 0, "HEALTHY"), (decline(110), 4, "SICK")])
def test_diagnose_exits_with_the_verdict(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    series: list[tuple[int, float, float]],
    code: int,
    word: str,
) -> None:
    path = write_log(tmp_path / "training.log", series)
    assert run(["diagnose", str(path)]) == code
    assert f"Verdict: {word}" in capsys.readouterr().out


def test_diagnose_exits_with_watch_when_trouble_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = [
        (s, math.nan, math.nan) if 60 <= s < 64 else (s, loss, norm) for s, loss, norm in healthy(200, 1)
    ]
    assert run(["diagnose", str(write_metrics(tmp_path / "metrics.jsonl", series))]) == 3
    assert "Verdict: WATCH" in capsys.readouterr().out


def test_diagnose_prints_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "training.log", DIP, decline(10))
    assert run(["diagnose", str(path), "--json", "--run", "1"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["verdict"] == "healthy"
    assert values["record"]["steps"] == 6


def test_diagnose_speaks_the_language_of_the_runs_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_metrics(tmp_path / "metrics.jsonl", healthy(40, 1))
    config = tmp_path / "config.yaml"
    config.write_text("monitor: {language: zh}\nschedule: {warmup_steps: 10}\n", encoding="utf-8")
    assert run(["diagnose", str(tmp_path)]) == 0
    assert "结论：健康" in capsys.readouterr().out
    assert run(["diagnose", str(tmp_path), "--language", "en"]) == 0
    assert "warm-up  1-10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "note", "warmup"),
    [
        (
            "schedule: {warmup_steps: 10}\nmonitor: {languages: zh}",
            "the rules in config.yaml are not this",
            True,
        ),
        ("model: {layers: 3}", "config.yaml could not be read, so the default rules were used: ", False),
        ("model: [", "config.yaml could not be read, so the default rules were used: ", False),
    ],
)
def test_diagnose_goes_on_when_the_configuration_is_of_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, note: str, warmup: bool
) -> None:
    write_metrics(tmp_path / "metrics.jsonl", healthy(40, 1))
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert run(["diagnose", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert note in out
    assert ("warm-up  1-10" in out) is warmup


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: there is no such file or folder"),
        (["table.csv"], "table.csv: neither a loss nor a grad_norm among a, b"),
        (
            ["table.csv", "--columns", "los=a"],
            "--columns los=a: wanted FIELD=NAME with one of the fields step, loss",
        ),
        (["table.csv", "--columns", "loss=c"], "--columns loss=c: table.csv has no 'c'"),
        (["table.csv", "--language", "fr"], "--language"),
    ],
)
def test_diagnose_refuses_wrong_usage_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert run(["diagnose", *arguments]) == USER_ERROR
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_diagnose_reads_a_table_by_the_columns_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    rows = [f"{step},{loss},{norm}" for step, loss, norm in healthy(60, 1)]
    path.write_text("\n".join(["n,l,g", *rows]), encoding="utf-8")
    assert run(["diagnose", str(path), "--columns", "step=n,loss=l,grad_norm=g"]) == 0
    assert "read as step=n, loss=l, grad_norm=g" in capsys.readouterr().out
