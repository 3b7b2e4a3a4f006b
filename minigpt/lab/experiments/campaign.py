"""All trainings of an experiment: several at a time, and only those that are not done yet."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from minigpt.config.load import load_config
from minigpt.errors import MiniGPTError
from minigpt.lab.experiments.experiment import BASE, Arm, Experiment, Results
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.places import path_overrides
from minigpt.lab.experiments.trial import PRESET, Trial, run_trial


class TrialFailedError(MiniGPTError):
    """A training of an experiment did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How much of an experiment is done, where, and with what."""

    folder: Path
    seeds: int | None = None
    """None: as many as the experiment, or its short form, has."""
    short: bool = False
    overrides: tuple[str, ...] = ()
    """The user's own, over all others but the seeds."""
    processes: int | None = None
    """Trainings at a time; None: one a core, one on a GPU."""


def trials_of(experiment: Experiment, terms: Terms) -> list[Trial]:
    """What is to be trained, arm by arm.

    Raises:
        ConfigError: a configuration of them cannot be; told before anything is trained.
    """
    processes = processes_of(experiment, terms)
    threads = max(1, (os.cpu_count() or 1) // processes)
    short = experiment.short
    seeds = terms.seeds or (short.seeds if terms.short else experiment.seeds)
    trials = []
    for arm in chosen_arms(experiment, terms):
        shortened = short.overrides if terms.short else ()
        common = (*BASE, *experiment.overrides, *arm.overrides, *shortened, *terms.overrides)
        common += path_overrides(load_config(PRESET, common).config)
        for seed in range(seeds):
            overrides = (*common, f"training.seed={seed}", f"data.seed={seed}")
            folder = terms.folder.absolute() / "runs" / _file_word(arm.name) / str(seed)
            trials.append(Trial(arm, seed, overrides, folder, threads))
    return trials


def chosen_arms(experiment: Experiment, terms: Terms) -> list[Arm]:
    """The arms of the experiment, or of its short form."""
    wanted = experiment.short.arms if terms.short else None
    return [arm for arm in experiment.arms if wanted is None or arm.name in wanted]


def processes_of(experiment: Experiment, terms: Terms) -> int:
    """How many trainings run at a time."""
    if experiment.alone:
        return 1
    if terms.processes is not None:
        return terms.processes
    config = load_config(PRESET, (*BASE, *experiment.overrides, *terms.overrides)).config
    return (
        1
        if config.training.device not in ("auto", "cpu") or _has_gpu(config.training.device)
        else os.cpu_count() or 1
    )


def _has_gpu(device: str) -> bool:
    import torch

    return device == "auto" and (torch.cuda.is_available() or torch.backends.mps.is_available())


def outcomes(trials: Sequence[Trial], processes: int) -> Iterator[Outcome]:
    """The outcome of each trial, in the order in which they are done.

    Raises:
        MiniGPTError: one failed; those that were done are kept.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, max(1, len(trials))), mp_context=context)
    running: dict[Future[Outcome], Trial] = {}
    try:
        running = {pool.submit(run_trial, trial): trial for trial in trials}
        for done in as_completed(running):
            try:
                yield done.result()
            except MiniGPTError:
                raise
            except Exception as error:
                raise _failed(running[done], error) from error
    finally:
        # Trainings under way end at their next step: Ctrl-C reaches them from a terminal, a crash of ours would not.
        pool_processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        if not all(future.done() for future in running):
            for process in pool_processes:
                if process.is_alive() and process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM)
        pool.shutdown(wait=True)


def _failed(trial: Trial, error: Exception) -> TrialFailedError:
    output = trial.folder / "output.txt"
    return TrialFailedError(
        f"the training of {trial.arm.name!r}, seed {trial.seed}, failed: {type(error).__name__}: {error} ({output})"
    )


def by_arm(arms: Sequence[Arm], found: Sequence[Outcome]) -> Results:
    """The outcomes sorted into arms and seeds."""
    return {
        arm.name: sorted((one for one in found if one.arm == arm.name), key=lambda one: one.seed)
        for arm in arms
    }


def _file_word(name: str) -> str:
    return "_".join("".join(char if char.isalnum() or char in ".+-" else " " for char in name).split())
