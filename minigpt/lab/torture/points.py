"""Every point at which a command can die: before each of its calls that change a file, and in the middle of a write."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.lab.torture.blow import Blow, End, watched
from minigpt.lab.torture.file_calls import FileCall
from minigpt.lab.torture.power import Disk
from minigpt.lab.torture.scenes import Scene, laid_out
from minigpt.lab.torture.victim import Surroundings, forked
from minigpt.lab.torture.whereabouts import Seat


@dataclass(frozen=True)
class Point:
    """One place to die."""

    number: int
    """Of the call, 1 for the first."""
    torn: bool
    power_loss: bool
    """Also what was not forced to the disk is gone."""


@dataclass(frozen=True)
class Stretch:
    """Which of a command's calls: from `first` to `last` (None: the last of all), each `every`-th."""

    first: int
    last: int | None
    every: int


@dataclass(frozen=True)
class Tried:
    """What came of it."""

    scene: str
    point: Point
    reached: bool
    place: str
    call: str | None
    wrong: str | None
    folder: str


def count_calls(scene: Scene, trial: Path) -> int:
    """The calls that the scene's command makes if nobody kills it."""
    at = laid_out(scene, trial)
    end = _killed_at(scene, at, trial, None, None)
    return end.calls


def tried(scene: Scene, point: Point, trial: Path) -> Tried:
    """The command killed at this point, the next one run to its end, and all of it checked."""
    at = laid_out(scene, trial)
    disk = Disk(trial) if point.power_loss else None
    wrong = None
    try:
        end = _killed_at(scene, at, trial, Blow(at_call=point.number, torn=point.torn), disk)
        if end.killed and disk is not None:
            wrong = _lost_in_the_dark(disk, trial / "run")
        wrong = wrong or _finished(scene, at, trial) or scene.check(trial)
    except (TimeoutError, OSError) as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong is None:
        shutil.rmtree(trial)
    return Tried(scene.name, point, end.killed, end.place, end.call, wrong, str(trial))


def points(calls: int, stretch: Stretch, *, power_loss: bool) -> Iterator[Point]:
    """Before the calls of the stretch; torn and whole in turns."""
    last = calls if stretch.last is None else min(calls, stretch.last)
    for index, number in enumerate(range(stretch.first, last + 1, stretch.every)):
        yield Point(number, torn=index % 2 == 1 and not power_loss, power_loss=power_loss)


def all_points(
    found: Sequence[Scene],
    folder: Path,
    *,
    stretch: Stretch,
    processes: int,
    power_loss: bool,
    tell: Callable[[Tried], None],
) -> list[Tried]:
    """All points of all scenes, over the `stretch`; `tell` gets each."""
    fork = multiprocessing.get_context("fork")
    done = []
    with ProcessPoolExecutor(processes, fork, initializer=_know, initargs=(found,)) as pool:
        counted = [pool.submit(_count, index, folder / f"count_{index}") for index in range(len(found))]
        jobs = [
            pool.submit(_try, index, point, folder / f"{index}_{point.number}")
            for index, future in enumerate(counted)
            for point in points(
                future.result(),
                stretch,
                power_loss=power_loss,
            )
        ]
        for job in as_completed(jobs):
            done.append(job.result())
            tell(done[-1])
    return done


class _Known:
    """The scenes, in each worker: what they hold cannot be sent to another process."""

    scenes: Sequence[Scene] = ()


def _know(found: Sequence[Scene]) -> None:
    _Known.scenes = found


def _count(index: int, trial: Path) -> int:
    return count_calls(_Known.scenes[index], trial)


def _try(index: int, point: Point, trial: Path) -> Tried:
    return tried(_Known.scenes[index], point, trial)


def _killed_at(scene: Scene, at: Surroundings, trial: Path, blow: Blow | None, disk: Disk | None) -> End:
    seat = Seat()
    victim = forked(scene.words(trial), at, seat, held_up=True, prelude=scene.case.prelude)
    on_call: Callable[[FileCall], None] | None = None if disk is None else disk.see
    return watched(victim, blow, seat, (trial,), on_call)


def _lost_in_the_dark(disk: Disk, run_dir: Path) -> str | None:
    """Lose power; whether a checkpoint that the run had relied upon is gone with it."""
    newest = max(
        (step for step, path in checkpoints_by_step(run_dir).items() if disk.is_relied_upon(path)), default=-1
    )
    disk.lose_power()
    left = checkpoints_by_step(run_dir)
    return None if max(left, default=-1) >= newest else f"lost: checkpoint {newest}, and {[*left]} are left"


def _finished(scene: Scene, at: Surroundings, trial: Path) -> str | None:
    seat = Seat()
    end = watched(forked(scene.again(trial), at, seat, prelude=scene.case.prelude), None, seat, ())
    if end.code == 0:
        return None
    lines = at.printed.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"the next command ended with {end.code}: {lines[-1] if lines else 'it printed nothing'}"
