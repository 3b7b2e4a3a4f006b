from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.lab.drill.catalogue import CONTROLS, FAULTS, check_names, own_scenarios
from minigpt.lab.drill.drill import Choice, chosen_scenarios, run_drill
from minigpt.lab.drill.reduced import REDUCED, REDUCED_CONTROLS, reduced_scenarios
from minigpt.lab.drill.scenario import Control, Fault
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.words.tables import WORDS

OWN = """
from dataclasses import dataclass

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting


@dataclass(frozen=True, kw_only=True)
class NoBatch(Fault):
    def update(self, training):
        return training.step < self.onset


FAULTS = [NoBatch(name="my_fault", onset=10, seeds=(0,), setting=Setting(steps=24), labels=("no_update",))]
"""


def test_catalogue_is_large_enough_and_every_name_is_its_own() -> None:
    assert len(FAULTS) >= 24
    assert len(CONTROLS) >= 14
    check_names([*FAULTS, *CONTROLS])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_begins_within_its_training_and_has_labels_the_monitor_knows(fault: Fault) -> None:
    assert 1 <= fault.onset < fault.setting.steps
    assert len(fault.seeds) >= 2
    assert fault.lasting or fault.steps_wrong
    findings = {finding for rule in RULES.values() for finding in rule.findings}
    causes = {key.removeprefix("cause.") for key in WORDS["en"] if key.startswith("cause.")}
    assert set(fault.labels) & findings
    assert {*fault.labels, *fault.symptoms} <= findings | causes


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_control_is_long_enough_to_tell(control: Control) -> None:
    assert 300 <= control.setting.steps <= 1000
    assert len(control.seeds) >= 2


def test_reduced_drill_has_a_dozen_faults_and_four_controls() -> None:
    found = reduced_scenarios()
    assert len(found) == len(REDUCED) + len(REDUCED_CONTROLS)
    assert sum(isinstance(scenario, Fault) for scenario in found) >= 12
    assert sum(isinstance(scenario, Control) for scenario in found) >= 4


def test_own_fault_is_recorded_in_new_processes_and_judged(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    choice = Choice(own=tmp_path, only="my_fault", processes=2)
    score = run_drill(choice, lambda done, of, name: None)
    assert [verdict.fault for verdict in score.verdicts] == ["my_fault"]


def test_own_folder_without_scenarios_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        own_scenarios(tmp_path / "none")
    (tmp_path / "empty.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has no list named FAULTS or CONTROLS"):
        own_scenarios(tmp_path)


def test_choice_without_a_scenario_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scenario has that in its name"):
        chosen_scenarios(Choice(only="nonsense"))


def test_two_scenarios_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two scenarios are named plain"):
        check_names([Control(name="plain"), Control(name="plain")])
