import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.checkpoint.lock import locked_folder
from minigpt.errors import CheckpointError, ConfigError, MiniGPTError
from minigpt.lab import experiments
from minigpt.lab.experiments.campaign import Terms, TrialFailedError, outcomes, trials_of
from minigpt.lab.experiments.experiment import Arm, Experiment, Look, Short
from minigpt.lab.experiments.registry import experiment_in
from minigpt.lab.experiments.run import run_experiment
from minigpt.lab.experiments.trial import Trial, run_trial
from minigpt.lab.where import all_of
from minigpt.training.run import Run
from tests.lab.experiments.short_form import write_text

TINY = (
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.context_length=16",
    "training.tokens_per_step=64",
    "training.max_steps=3",
    "training.eval_tokens=64",
    "data.tokenizer.kind=bytes",
)
DOCUMENT = Path(experiments.__file__).parents[1] / "LAB.md"


def tiny(folder: Path, *overrides: str, **changes: object) -> tuple[Experiment, Terms]:
    """An experiment of one arm, and terms that put it on the tests' text."""
    experiment = Experiment(
        name="tiny",
        question="?",
        definitions="",
        arms=(Arm(name="the arm"),),
        seeds=2,
        short=Short(seeds=1, overrides=("training.max_steps=2",)),
        tables=lambda results: [],
        claims=lambda results: [],
        draw=lambda results, figure: None,
    )
    text = write_text(folder / "text")
    given = (*TINY, f"data.source={text}", f"data.cache_dir={folder / 'cache'}", *overrides)
    return experiment, replace(Terms(folder=folder / "results", overrides=given, processes=1), **changes)  # type: ignore[arg-type]


def with_look(trial: Trial, *, before: Look | None = None, after: Look | None = None) -> Trial:
    return replace(trial, arm=replace(trial.arm, before=before, after=after), threads=1)


def layers(run: Run) -> dict[str, int]:
    return {"layers": run.model.config.num_layers}


def steps_done(run: Run) -> dict[str, int]:
    return {"step": run.position.step}


def be_killed(run: Run) -> dict[str, int]:
    os._exit(9)


def fail(run: Run) -> dict[str, int]:
    raise ZeroDivisionError("the look failed")


def test_outcome_has_what_the_run_recorded_and_what_the_looks_saw(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path)

    found = run_trial(with_look(trials_of(experiment, terms)[1], before=layers, after=steps_done))

    assert (found.arm, found.seed, found.steps, len(found.losses)) == ("the arm", 1, 3, 3)
    assert (found.before, found.after) == ({"layers": 1}, {"step": 3})
    assert set(found.first_group_norms) == {"embedding", "blocks.0", "norm"}
    assert found.validation_loss is not None
    assert 0 < found.unigram_loss < 5.6
    assert not list((tmp_path / "results").rglob("*.pt"))


def test_seeds_differ_and_are_the_same_again(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path)

    first, second = (run_trial(replace(trial, threads=1)) for trial in trials_of(experiment, terms))
    again = run_trial(replace(trials_of(experiment, replace(terms, folder=tmp_path / "again"))[0], threads=1))

    assert first.losses != second.losses
    assert again.losses == first.losses


def test_trial_is_not_trained_again_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path)
    trial = replace(trials_of(experiment, terms)[0], threads=1)
    run_trial(trial)
    kept = trial.folder / "outcome.json"
    marked = {**json.loads(kept.read_text()), "health": "read, not trained"}
    kept.write_text(json.dumps(marked))

    assert run_trial(trial).health == "read, not trained"
    other = replace(trial, overrides=(*trial.overrides, "training.max_steps=2"))
    assert run_trial(other).steps == 2
    assert run_trial(trial).steps == 3


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", '{"losses": 3}', "\x00\x00"])
def test_damaged_outcome_is_trained_again(tmp_path: Path, damage: str) -> None:
    experiment, terms = tiny(tmp_path, seeds=1)
    trial = replace(trials_of(experiment, terms)[0], threads=1)
    found = run_trial(trial)
    (trial.folder / "outcome.json").write_text(damage)

    assert run_trial(trial).losses == found.losses
    assert trial.kept() is not None


def test_folder_that_another_command_trains_in_is_refused(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path, seeds=1)

    with (
        locked_folder(terms.folder),
        pytest.raises(CheckpointError, match=r"in use by process .* another folder with --output"),
    ):
        run_experiment(experiment, terms, "minigpt lab tiny", with_plot=False)

    assert not terms.folder.exists()


def test_report_names_the_machine_and_day_of_the_training_not_of_the_reading(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path, seeds=1)
    trial = replace(trials_of(experiment, terms)[0], threads=1)
    assert re.search(r", \d{4}-\d\d-\d\d$", run_trial(trial).where)
    kept = trial.folder / "outcome.json"
    # As an earlier day on another machine would have left it.
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "where": "8 cores of another, 2001-01-01"}))

    text = run_experiment(experiment, terms, "minigpt lab tiny", with_plot=False)

    assert text.endswith("1 training by `minigpt lab tiny`. 8 cores of another, 2001-01-01.")
    assert (
        json.loads((terms.folder / "results.json").read_text())["where"] == "8 cores of another, 2001-01-01"
    )


def test_machines_are_counted_and_days_are_a_range() -> None:
    assert all_of(["a, 2001-01-02", "a, 2001-01-02"]) == "a, 2001-01-02"
    assert all_of(["a, b, 2001-01-02", "a, b, 2001-01-01"]) == "a, b, 2001-01-01 to 2001-01-02"
    assert (
        all_of(["a, 2001-01-01", "b, 2001-01-01", "b, 2001-01-01"])
        == "2 on b, 2001-01-01; 1 on a, 2001-01-01"
    )
    assert all_of(["a, 2001-01-01", "", ""]) == "2 on a machine not noted; 1 on a, 2001-01-01"


def test_configuration_that_cannot_be_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path, "model.num_heads=3")

    with pytest.raises(ConfigError, match="num_heads"):
        trials_of(experiment, terms)

    assert not terms.folder.exists()


def test_failure_of_a_training_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path)
    arms = (Arm(name="good"), Arm(name="bad", before=fail))
    trials = [
        replace(trial, threads=1) for trial in trials_of(replace(experiment, arms=arms, seeds=1), terms)
    ]

    with pytest.raises(TrialFailedError, match="'bad', seed 0, failed: ZeroDivisionError: the look failed"):
        list(outcomes(trials, 1))

    assert trials[0].kept() is not None
    assert trials[1].kept() is None


def test_training_that_the_system_ends_is_told_with_a_way_out(tmp_path: Path) -> None:
    experiment, terms = tiny(tmp_path)
    trials = trials_of(replace(experiment, arms=(Arm(name="large", before=be_killed),)), terms)

    with pytest.raises(TrialFailedError, match=r"ended from outside, .* out of memory; try --processes 1"):
        list(outcomes([replace(trial, threads=1) for trial in trials], 2))


def test_experiment_of_ones_own_is_the_one_file_that_the_document_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, terms = tiny(tmp_path, "model.hidden_size=16", short=True)
    own = tmp_path / "heads.py"
    own.write_text(
        DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], encoding="utf-8"
    )

    text = run_experiment(experiment_in(own), terms, "minigpt lab run heads.py", own=own)

    assert "# lab heads: does the number of heads matter?" in text
    assert "- Claim: four heads learn more than one." in text
    assert "2 trainings by `minigpt lab run heads.py`." in text
    assert {path.name for path in terms.folder.iterdir() if not path.name.startswith(".")} == {
        "runs", "report.md", "results.json", "table.csv", "plot.png"
    }  # fmt: skip
    found = json.loads((terms.folder / "results.json").read_text())
    assert [row["head_dim"] for row in found["tables"][0]["rows"]] == [16, 4]
    assert "2/2 four heads, seed 0: loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.py", None, "there is no such file"),
        ("empty.py", "", "has no EXPERIMENT"),
        ("words.txt", "EXPERIMENT = 1", "must end in .py"),
    ],
)
def test_file_without_an_experiment_is_refused_in_a_line(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)

    with pytest.raises(MiniGPTError, match=said):
        experiment_in(tmp_path / name)
