"""The reduced drill is what keeps the monitor honest: real trainings, real faults."""

from dataclasses import replace

import pytest

from minigpt.lab.drill.drill import Choice, run_drill
from minigpt.lab.drill.report import markdown
from minigpt.lab.drill.score import Score
from minigpt.lab.drill.targets import targets
from minigpt.training_monitor.config import MonitorConfig
from tests.lab.conftest import ReducedDrill


def missed(score: Score) -> list[str]:
    return [target.line() for target in targets(score) if not target.is_met]


def test_drill_meets_every_target_when_all_rules_are_on(reduced_drill: ReducedDrill) -> None:
    assert missed(reduced_drill.score) == [], markdown(reduced_drill.score)


@pytest.mark.parametrize("rule", ["leftover_gradient", "optimizer_state_lost", "non_finite"])
def test_drill_fails_when_a_rule_is_off(reduced_drill: ReducedDrill, rule: str) -> None:
    usual = MonitorConfig()
    without = replace(usual, **{rule: replace(getattr(usual, rule), enabled=False)})
    choice = Choice(reduced=True, traces=reduced_drill.traces, recorded_only=True)
    score = run_drill(choice, lambda done, of, name: None, without)
    assert any("recall" in line for line in missed(score)), markdown(score)


def test_drill_hears_the_same_when_asked_again(reduced_drill: ReducedDrill) -> None:
    choice = Choice(reduced=True, traces=reduced_drill.traces)
    recorded: list[str] = []
    again = run_drill(choice, lambda done, of, name: recorded.append(name))
    assert again.verdicts == reduced_drill.score.verdicts
    assert recorded == [], "what is recorded is not recorded again"


def test_report_tells_of_every_fault_and_rule(reduced_drill: ReducedDrill) -> None:
    text = markdown(reduced_drill.score)
    for name in ("reduced-lr_jump ", "reduced-nan_loss_once ", "OLMo 6 sigma / 128", "this monitor"):
        assert f"| {name}" in text
