import json
from pathlib import Path

import pytest

from minigpt.cli.lab import MISSED
from minigpt.cli.main import USER_ERROR, run

UNHEARD = """
from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting

FAULTS = [Fault(name="nothing_wrong", onset=5, seeds=(0,), setting=Setting(steps=12), labels=("no_update",))]
"""


def test_drill_writes_its_report_and_fails_when_a_target_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(UNHEARD, encoding="utf-8")
    report = tmp_path / "report"
    asked = ["lab", "drill", "--faults", str(tmp_path), "--only", "nothing_wrong", "--processes", "1"]
    assert run([*asked, "--output", str(report), "--check"]) == MISSED
    assert "MISSED  recall: 0 (at least 0.98)" in capsys.readouterr().out
    content = json.loads((report / "drill.json").read_text(encoding="utf-8"))
    assert content["verdicts"][0]["noticed_at"] is None
    assert (report / "drill.md").read_text(encoding="utf-8").startswith("# The monitor's drill")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--recorded-only"], "error: --recorded-only needs --traces DIR"),
        (["--only", "nonsense"], "error: --only nonsense: no scenario has that in its name"),
        (["--faults", "nowhere"], "error: --faults nowhere: there is no such folder"),
    ],
)
def test_drill_refuses_in_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lab", "drill", *arguments]) == USER_ERROR
    assert capsys.readouterr().err.startswith(line)
