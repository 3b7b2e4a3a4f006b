"""The whole drill: record what is not recorded, judge all of it, put the score together."""

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import ConfigError
from minigpt.lab.drill.catalogue import CONTROLS, FAULTS, check_names, own_scenarios
from minigpt.lab.drill.judge import hear
from minigpt.lab.drill.record import Job, clean_twin, jobs_of, know_own_scenarios, record_all
from minigpt.lab.drill.reduced import reduced_scenarios
from minigpt.lab.drill.scenario import Control, Scenario
from minigpt.lab.drill.score import Recorded, Score, alarms_of, score
from minigpt.lab.drill.trace import Trace, trace_path
from minigpt.lab.drill.unseen import unseen
from minigpt.training_monitor.config import MonitorConfig

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which part of the catalogue a drill takes, and where its traces are."""

    reduced: bool = False
    only: str | None = None
    """Scenarios whose name contains this."""
    healthy_only: bool = False
    """The controls alone: a rate of false alarms needs many healthy steps."""
    own: Path | None = None
    """A folder with more scenarios."""
    seeds: int | None = None
    """At most so many of each scenario."""
    unseen_from: int | None = None
    """Instead of their own seeds: this one and the following, in settings drawn by them."""
    traces: Path | None = None
    """Where recordings are kept for the next time; None: nowhere."""
    recorded_only: bool = False
    """Judge what is in `traces`, fresh or stale, and train nothing."""
    processes: int = 1


def run_drill(choice: Choice, report: Report, config: MonitorConfig | None = None) -> Score:
    """Raises ConfigError when nothing fits the choice."""
    jobs = _chosen_jobs(choice)
    kept = nullcontext(choice.traces) if choice.traces else tempfile.TemporaryDirectory()
    with kept as place:
        folder = Path(place)
        if not choice.recorded_only:
            record_all(jobs, folder, choice.processes, choice.own, report)
        jobs = [job for job in jobs if trace_path(folder, job.scenario.name, job.seed).is_file()]
        if not jobs:
            raise ConfigError(f"{folder} has no recording of what was asked for")
        records = _judged(jobs, folder, config, choice.processes, choice.own)
    return score(records, lambda fault: clean_twin(fault).name)


def chosen_scenarios(choice: Choice) -> list[Scenario]:
    """The scenarios of a choice, faults first."""
    found: list[Scenario] = reduced_scenarios() if choice.reduced else [*FAULTS, *CONTROLS]
    if choice.own is not None:
        found += own_scenarios(choice.own)
    check_names(found)
    if choice.healthy_only:
        found = [scenario for scenario in found if isinstance(scenario, Control)]
    if choice.only:
        found = [scenario for scenario in found if choice.only in scenario.name]
    if not found:
        raise ConfigError(f"--only {choice.only}: no scenario has that in its name")
    return found


def _chosen_jobs(choice: Choice) -> list[Job]:
    scenarios = chosen_scenarios(choice)
    if choice.unseen_from is None:
        return jobs_of(scenarios, choice.seeds)
    seeds = range(choice.unseen_from, choice.unseen_from + (choice.seeds or 1))
    return jobs_of([unseen(scenario, seed) for scenario in scenarios for seed in seeds])


def _judged(
    jobs: Sequence[Job], folder: Path, config: MonitorConfig | None, processes: int, own: Path | None
) -> list[Recorded]:
    if processes == 1:
        return [judge_job(job, folder, config) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=know_own_scenarios, initargs=(own,)
    ) as pool:
        count = len(jobs)
        return list(pool.map(judge_job, jobs, [folder] * count, [config] * count, chunksize=4))


def judge_job(job: Job, folder: Path, config: MonitorConfig | None) -> Recorded:
    """Reads a recording and asks the monitor and the other rules."""
    trace = Trace.load(trace_path(folder, job.scenario.name, job.seed))
    return Recorded(
        job.scenario, job.seed, len(trace.signals), trace.test_loss, hear(trace, config), alarms_of(trace)
    )
