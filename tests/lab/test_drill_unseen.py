from pathlib import Path

import pytest

from minigpt.lab.drill.catalogue import CONTROLS, FAULTS
from minigpt.lab.drill.drill import Choice, chosen_scenarios, run_drill
from minigpt.lab.drill.scenario import Control, Fault, Scenario
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.targets import targets
from minigpt.lab.drill.unseen import unseen

EVERY = {scenario.name: scenario for scenario in (*FAULTS, *CONTROLS)}
FAULTS_WITH_A_HEALTHY_SETTING = [fault for fault in FAULTS if fault.healthy is not None]


@pytest.mark.parametrize("scenario", EVERY.values(), ids=EVERY)
def test_unseen_training_keeps_what_makes_the_scenario_and_changes_its_size(scenario: Scenario) -> None:
    drawn = unseen(scenario, 1000)
    assert type(drawn) is type(scenario)
    assert (drawn.name, drawn.seeds) == (scenario.name, (1000,))
    kept = {"steps", "optimizer", "learning_rate", "schedule", "precision", "accumulation", "shows_batch"}
    assert all(getattr(drawn.setting, name) == getattr(scenario.setting, name) for name in kept)
    assert drawn.setting != scenario.setting


def test_unseen_draw_is_the_same_when_the_seed_is() -> None:
    scenario = EVERY["lr_jump"]
    draws = [unseen(scenario, seed).setting for seed in (7, 7, 8, 9)]
    assert draws[0] == draws[1]
    assert draws[2] != draws[0] != draws[3]


def test_unseen_setting_leaves_alone_what_the_scenario_has_chosen() -> None:
    batch_one = next(control for control in CONTROLS if control.setting.batch_size == 1)
    assert {unseen(batch_one, seed).setting.batch_size for seed in range(1000, 1010)} == {1}
    assert {unseen(EVERY["plain"], seed).setting.batch_size for seed in range(1000, 1020)} != {
        Setting().batch_size
    }


@pytest.mark.parametrize("fault", FAULTS_WITH_A_HEALTHY_SETTING, ids=lambda fault: fault.name)
def test_unseen_fault_is_compared_with_a_training_of_its_own_size(fault: Fault) -> None:
    drawn = unseen(fault, 1000)
    assert isinstance(drawn, Fault)
    assert drawn.healthy is not None
    assert drawn.healthy.language_seed == drawn.setting.language_seed
    assert drawn.healthy.vocab_size == drawn.setting.vocab_size


def test_unseen_drill_records_as_many_seeds_as_asked(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "short.py").write_text(
        "from minigpt.lab.drill.scenario import Control\n"
        "from minigpt.lab.drill.setting import Setting\n"
        "CONTROLS = [Control(name='short_one', setting=Setting(steps=3))]\n"
    )
    choice = Choice(only="short_one", own=own, unseen_from=1000, seeds=2, traces=tmp_path / "traces")
    score = run_drill(choice, lambda *_: None)
    assert score.healthy_steps == 6
    assert {path.name for path in (tmp_path / "traces").iterdir()} == {
        "short_one.1000.trace",
        "short_one.1001.trace",
    }


def test_drill_of_healthy_trainings_alone_is_judged_by_its_false_alarms(tmp_path: Path) -> None:
    choice = Choice(only="plain", healthy_only=True)
    assert all(isinstance(scenario, Control) for scenario in chosen_scenarios(choice))
    own = tmp_path / "own"
    own.mkdir()
    (own / "both.py").write_text(
        "from minigpt.lab.drill.scenario import Control, Fault\n"
        "from minigpt.lab.drill.setting import Setting\n"
        "CONTROLS = [Control(name='short_one', seeds=(0,), setting=Setting(steps=3))]\n"
        "FAULTS = [Fault(name='short_two', labels=('no_update',), setting=Setting(steps=3))]\n"
    )
    choice = Choice(only="short", healthy_only=True, own=own, traces=tmp_path / "traces")
    score = run_drill(choice, lambda *_: None)
    assert (score.healthy_steps, len(score.verdicts)) == (3, 0)
    assert [target.name for target in targets(score)] == ["false interruptions per 10,000 healthy steps"]
    assert targets(score)[0].is_met
