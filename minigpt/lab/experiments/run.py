"""An experiment from the command to its report."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from minigpt.checkpoint.lock import locked_folder
from minigpt.lab.experiments.campaign import (
    Terms,
    TrialFailedError,
    by_arm,
    chosen_arms,
    outcomes,
    processes_of,
    trials_of,
)
from minigpt.lab.experiments.experiment import Experiment
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.report import check_drawing, write_results
from minigpt.lab.experiments.trial import Trial
from minigpt.lab.script import say


def run_experiment(
    experiment: Experiment, terms: Terms, command: str, *, with_plot: bool = True, own: Path | None = None
) -> str:
    """Train what is not trained yet, write the results to `terms.folder`, and return the report.

    `own` is the file that the experiment comes from, where it is not one of MiniGPT's.

    Raises:
        MiniGPTError: a mistake of the user's, or a training that failed; what was done is kept.
        KeyboardInterrupt: likewise kept.
    """
    if with_plot:
        check_drawing()
    trials = trials_of(experiment, terms)
    processes = processes_of(experiment, terms)
    # At once: a folder that cannot be written, or that another command trains in, is told now and not after hours.
    with locked_folder(terms.folder, "--output"):
        found: list[Outcome] = []
        try:
            for outcome in _shown(outcomes(trials, processes, own), trials, experiment.name):
                found.append(outcome)
        except (KeyboardInterrupt, TrialFailedError):
            say(
                f"{len(found)} of {len(trials)} trainings are done and kept in {terms.folder}; the same command goes on"
            )
            raise
        results = by_arm(chosen_arms(experiment, terms), found)
        text = write_results(experiment, results, terms.folder, command, with_plot=with_plot)
        say(
            f"report.md, results.json, the tables{' and plot.png' if with_plot else ''} are in {terms.folder}"
        )
    return text


def _shown(found: Iterator[Outcome], trials: Sequence[Trial], name: str) -> Iterator[Outcome]:
    """A bar on a terminal, else a line a training."""
    bar = tqdm(found, f"lab {name}", len(trials), unit="run", disable=not sys.stderr.isatty(), smoothing=0)
    for number, outcome in enumerate(bar, 1):
        ended = outcome.blew_up or f"loss {outcome.final_loss:.3f}"
        told = f"{outcome.arm}, seed {outcome.seed}: {ended}, {outcome.health}"
        bar.set_postfix_str(told)
        if bar.disable:
            say(f"{number}/{len(trials)} {told}")
        yield outcome


def default_folder(name: str, short: bool) -> Path:
    """Where an experiment's results go unless the user says where."""
    return Path("checkpoints") / f"lab_{name}{'_short' if short else ''}"
