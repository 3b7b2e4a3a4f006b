"""The short form of an experiment on a text that tests can make, smaller still where a test says so."""

from dataclasses import replace
from pathlib import Path

from minigpt.lab.experiments.campaign import Terms, by_arm, chosen_arms, outcomes, processes_of, trials_of
from minigpt.lab.experiments.experiment import Experiment, Results
from minigpt.lab.experiments.trial import run_trial
from tests.training.tiny_run import text_of


def write_text(folder: Path) -> Path:
    """A folder of little documents that a model learns something of in a few dozen steps."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(40):
        (folder / f"{number}.txt").write_text(text_of(number), encoding="utf-8")
    return folder


def short_results(
    experiment: Experiment, folder: Path, *overrides: str, seeds: int | None = None, processes: int = 1
) -> Results:
    """What the short form comes to; in this process with one process, so that a debugger and a profile reach it."""
    text = write_text(folder / "text")
    tiny = (
        f"data.source={text}",
        f"data.cache_dir={folder / 'cache'}",
        "data.tokenizer.vocab_size=300",
        "training.eval_tokens=4096",
        *overrides,
    )
    terms = Terms(folder=folder / "results", seeds=seeds, short=True, overrides=tiny, processes=processes)
    # One thread: so small a model gains nothing from more, and loses much where others use the machine.
    trials = [replace(trial, threads=1) for trial in trials_of(experiment, terms)]
    found = (
        [run_trial(trial) for trial in trials]
        if processes == 1
        else list(outcomes(trials, processes_of(experiment, terms)))
    )
    return by_arm(chosen_arms(experiment, terms), found)
