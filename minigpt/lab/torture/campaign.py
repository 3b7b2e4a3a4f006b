"""Many lives on several processes, until there were kills enough."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path

from minigpt.lab.torture.blow import watched
from minigpt.lab.torture.cases import Case, write_workshop
from minigpt.lab.torture.life import Lived, Setting, Straight, Wrong, lived, straight_run
from minigpt.lab.torture.victim import Surroundings, fresh
from minigpt.lab.torture.whereabouts import Seat


@dataclass(frozen=True)
class Campaign:
    """What was asked for."""

    cases: Sequence[Case]
    folder: Path
    kills: int
    minutes: float | None
    seed: str
    processes: int
    fresh_share: float
    holds_up: bool
    """Whether file calls can be held up here."""


def campaign(asked: Campaign, tell: Callable[[Lived, int], None]) -> list[Lived]:
    """All lives; `tell` gets each as it ends, with the blows so far.

    Raises:
        Wrong: a straight run fails.
    """
    workshop = asked.folder / "workshop"
    write_workshop(workshop)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(asked.processes, fork) as pool:
        places = [asked.folder / "straight" / str(index) for index in range(len(asked.cases))]
        began = [
            pool.submit(straight_run, case, workshop, place, holds_up=asked.holds_up)
            for case, place in zip(asked.cases, places, strict=True)
        ]
        fresh_seconds = _fresh_seconds(asked, workshop) if asked.fresh_share else 0.0
        straight = {case.name: future.result() for case, future in zip(asked.cases, began, strict=True)}
        setting = Setting(workshop, asked.fresh_share, fresh_seconds, asked.holds_up)
        return _lives(pool, asked, straight, setting, tell)


def _lives(
    pool: ProcessPoolExecutor,
    asked: Campaign,
    straight: dict[str, Straight],
    setting: Setting,
    tell: Callable[[Lived, int], None],
) -> list[Lived]:
    ends_at = None if asked.minutes is None else time.monotonic() + 60 * asked.minutes
    done: list[Lived] = []
    running: set[Future[Lived]] = set()
    blows, turns = 0, _turns(asked.cases)
    numbers = count(1)
    while True:
        enough = blows >= asked.kills or (ends_at is not None and time.monotonic() > ends_at)
        while not enough and len(running) < asked.processes:
            case, number = next(turns), next(numbers)
            seed, folder = f"{asked.seed}.{number}", asked.folder / "lives" / str(number)
            running.add(pool.submit(lived, case, straight[case.name], setting, seed, folder))
        if not running:
            return done
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            story = future.result()
            done.append(story)
            blows += len(story.struck)
            tell(story, blows)


def _turns(cases: Sequence[Case]) -> Iterator[Case]:
    return cycle([case for case in cases for _ in range(case.weight)])


def _fresh_seconds(asked: Campaign, workshop: Path) -> float:
    """How long a whole run in a process of its own takes here."""
    folder = asked.folder / "straight" / "fresh"
    folder.mkdir(parents=True)
    case = next((case for case in asked.cases if case.prelude is None), None)
    if case is None:
        return 0.0
    at = Surroundings(folder, folder / "cache", folder / "printed.txt")
    end = watched(fresh(case.started(workshop, folder / "run"), at), None, Seat(), ())
    if end.code != 0:
        raise Wrong(f"a straight run in a process of its own ended with {end.code}: see {at.printed}")
    return end.seconds
