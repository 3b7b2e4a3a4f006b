"""All trainings of an experiment: several at a time, and only those that are not done yet."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from minigpt.config.load import load_config
from minigpt.errors import MiniGPTError
from minigpt.lab.experiments.experiment import BASE, Arm, Experiment, Results
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.places import path_overrides
from minigpt.lab.experiments.registry import experiment_in
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
    """The user's own, over all others but those that an arm is about, and the seeds."""
    processes: int | None = None
    """Trainings at a time; None: one a core, one on a GPU."""


def trials_of(experiment: Experiment, terms: Terms) -> list[Trial]:
    """What is to be trained, arm by arm.

    Raises:
        ConfigError: a configuration of them cannot be; told before anything is trained.
    """
    processes = processes_of(experiment, terms)
    threads = max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // processes))
    short = experiment.short
    seeds = terms.seeds or (short.seeds if terms.short else experiment.seeds)
    trials = []
    for arm in chosen_arms(experiment, terms):
        shortened = short.overrides if terms.short else ()
        # The arm's own last: whatever the user changes, the arms still differ in what they are compared for.
        common = (*BASE, *experiment.overrides, *shortened, *terms.overrides, *arm.overrides)
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
    return device == "auto" and (torch.cuda.is_available() or torch.backends.mps.is_available())


def outcomes(trials: Sequence[Trial], processes: int, own: Path | None = None) -> Iterator[Outcome]:
    """The outcome of each trial, in the order in which they are done.

    `own` is the user's file that the trials come from: every process has to read it.

    Raises:
        MiniGPTError: one failed; those that were done are kept.
        KeyboardInterrupt: Ctrl-C, or SIGTERM; likewise.
    """
    done_before = [(trial, trial.kept()) for trial in trials]
    yield from (outcome for _, outcome in done_before if outcome is not None)
    left = [trial for trial, outcome in done_before if outcome is None]
    if not left:
        return
    pool = ProcessPoolExecutor(
        min(processes, len(left)),
        # Forked processes would inherit torch's threads in an undefined state.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(own,),
    )
    running: dict[Future[Outcome], Trial] = {}
    with _sigterm_as_interrupt():
        try:
            running = {pool.submit(run_trial, trial): trial for trial in left}
            for done in as_completed(running):
                try:
                    yield done.result()
                except MiniGPTError:
                    raise
                except BrokenProcessPool as error:
                    raise _ended_from_outside(processes) from error
                except Exception as error:
                    raise _failed(running[done], error) from error
        finally:
            _end(pool, all_done=all(future.done() for future in running))


def _begin_process(own: Path | None) -> None:
    # In a group of its own: Ctrl-C at the terminal is the parent's, which then ends the trainings. Not on Windows.
    if sys.platform != "win32":
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # tqdm's own lock is a semaphore of the system, of whose leak Python would warn once this process is ended.
    tqdm.set_lock(threading.RLock())
    if own is not None:
        experiment_in(own)


def _end_with_parent() -> None:
    """A command that was killed cannot end its trainings: without this they would stay, and wait for more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end(pool: ProcessPoolExecutor, *, all_done: bool) -> None:
    """What is half trained is trained again from its start, so nothing is lost by ending it at once."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes if not all_done else ():
        process.kill()
    pool.shutdown()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A scheduler's request to end is the user's Ctrl-C; the trainings' processes would else stay behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended_from_outside(processes: int) -> TrialFailedError:
    """Which of those under way it was is not known."""
    fewer = f"; try --processes {processes // 2}" if processes > 1 else ""
    return TrialFailedError(
        f"the process of a training was ended from outside, as by a system that runs out of memory{fewer}"
    )


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
