"""Records scenarios, several at a time; what is recorded already and not stale is taken from the folder."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from minigpt.lab.drill.catalogue import own_scenarios
from minigpt.lab.drill.scenario import Fault, Scenario
from minigpt.lab.drill.trace import Trace, fingerprint, fingerprint_of, trace_path
from minigpt.lab.drill.training import Training


class Job(NamedTuple):
    """One training to record."""

    scenario: Scenario
    seed: int


def jobs_of(scenarios: Iterable[Scenario], seeds: int | None = None) -> list[Job]:
    """Every scenario with its seeds (at most `seeds` of them), and for each fault the same training without it."""
    jobs: dict[tuple[str, int], Job] = {}
    for scenario in scenarios:
        for seed in scenario.seeds[:seeds]:
            jobs[scenario.name, seed] = Job(scenario, seed)
            if isinstance(scenario, Fault):
                clean = clean_twin(scenario)
                jobs.setdefault((clean.name, seed), Job(clean, seed))
    return list(jobs.values())


def clean_twin(fault: Fault) -> Scenario:
    """The training of a fault without it; faults of equal settings share it."""
    # What only the monitor is told changes no weight.
    setting = replace(fault.healthy or fault.setting, shows_batch=True, shows_schedule=True)
    digest = hashlib.sha256(repr(setting).encode()).hexdigest()[:10]
    return Scenario(name=f"clean-{digest}", setting=setting)


def record(job: Job) -> Trace:
    """Trains, and gives what the monitor measured."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    training = Training(job.scenario, job.seed)
    training.run()
    watch = training.watch
    return Trace(
        job.scenario.name,
        job.seed,
        watch.facts,
        tuple(watch.recorder.signals),
        tuple(watch.marks),
        training.test_loss(),
        fingerprint(job.scenario),
    )


def record_all(
    jobs: Iterable[Job],
    folder: Path,
    processes: int,
    own: Path | None,
    report: Callable[[int, int, str], None],
) -> None:
    """Fills `folder` with the traces that it lacks; `report(done, of, name)` after each.

    `own` is the folder of a user's scenarios, which a new process does not know yet.
    """
    wanted = [job for job in jobs if not _is_fresh(job, folder)]
    # The longest first, or the last process would work alone at the end.
    wanted.sort(key=lambda job: -job.scenario.setting.steps)
    # Forked processes would inherit torch's threads in an undefined state.
    context = multiprocessing.get_context("spawn")
    make_pool = partial(
        ProcessPoolExecutor, processes, mp_context=context, initializer=know_own_scenarios, initargs=(own,)
    )
    done = 0
    for alone, process_lasts_for in ((True, 1), (False, None)):
        jobs = [job for job in wanted if job.scenario.alone is alone]
        with make_pool(max_tasks_per_child=process_lasts_for) as pool:
            running = {pool.submit(_record_to, job, folder): job for job in jobs}
            for future in as_completed(running):
                future.result()
                done += 1
                report(done, len(wanted), running[future].scenario.name)


def know_own_scenarios(own: Path | None) -> None:
    """What a process must do before it can be sent a user's scenario."""
    if own is not None:
        own_scenarios(own)


def _record_to(job: Job, folder: Path) -> None:
    record(job).save(trace_path(folder, job.scenario.name, job.seed))


def _is_fresh(job: Job, folder: Path) -> bool:
    return fingerprint_of(trace_path(folder, job.scenario.name, job.seed)) == fingerprint(job.scenario)
