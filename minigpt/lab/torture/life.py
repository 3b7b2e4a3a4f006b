"""A run that is killed several times, resumed each time, and compared with one that nobody disturbed."""

import random
import re
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.lab.torture.blow import Blow, End, watched
from minigpt.lab.torture.cases import Case
from minigpt.lab.torture.compare import difference, leftovers
from minigpt.lab.torture.draw import drawn_blow
from minigpt.lab.torture.victim import Surroundings, Victim, forked, fresh
from minigpt.lab.torture.whereabouts import Seat

MOST_BLOWS = 4
"""In one life; some come while a resume recovers from the one before."""
IN_A_FRESH_PROCESS = "a process of its own"
_STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
_RESUMED = re.compile(r"Resumed from .*checkpoint_step_(\d+)\.pt")


@dataclass(frozen=True)
class Straight:
    """The run that nobody disturbed."""

    run_dir: Path
    cache: Path
    calls: int
    """File calls that it makes."""
    seconds: float


@dataclass(frozen=True)
class Struck:
    """A blow that came, and what it met."""

    blow: str
    place: str
    call: str | None
    killed: bool
    checkpoint: int | None
    """The newest whole checkpoint that it left."""


@dataclass
class Lived:
    """A life as it went."""

    case: str
    seed: str
    struck: list[Struck] = field(default_factory=list)
    wrong: str | None = None
    """The first thing that is not as in the straight run, or went wrong on the way; None: bit-equal."""
    folder: str = ""
    """Kept where something is wrong."""


class Wrong(Exception):  # noqa: N818 - it is no error of the program's
    """What a life ended with."""


@dataclass(frozen=True)
class Setting:
    """What all lives of a campaign share."""

    workshop: Path
    fresh_share: float
    fresh_seconds: float
    """A fresh process takes so long, imports and all."""
    holds_up: bool
    """Whether file calls can be held up here."""


def straight_run(case: Case, workshop: Path, folder: Path, *, holds_up: bool = True) -> Straight:
    """The undisturbed run of a case, with its own cache.

    Raises:
        Wrong: it fails.
    """
    folder.mkdir(parents=True)
    at = Surroundings(folder, folder / "cache", folder / "printed.txt")
    run_dir, seat = folder / "run", Seat()
    victim = forked(case.started(workshop, run_dir), at, seat, held_up=holds_up, prelude=case.prelude)
    end = watched(victim, None, seat, (folder,))
    if end.code != 0:
        raise Wrong(f"{case.name}: the straight run ended with {end.code}: {_last_line(at.printed, 0)}")
    return Straight(run_dir, at.cache, end.calls, end.seconds)


def lived(case: Case, straight: Straight, setting: Setting, seed: str, folder: Path) -> Lived:
    """One life, every choice in it drawn from `seed`; its folder goes if nothing is wrong."""
    story = Lived(case.name, seed, folder=str(folder))
    folder.mkdir(parents=True)
    random_ = random.Random(seed)
    # Now and then with an empty cache, to be killed while it is filled.
    cold = random_.random() < 0.25
    at = Surroundings(folder, folder / "cache" if cold else straight.cache, folder / "printed.txt")
    try:
        _live(story, case, straight, setting, random_, at)
        run_dir, same = folder / "run", case.same_checkpoints and all(each.killed for each in story.struck)
        story.wrong = difference(straight.run_dir, run_dir, case.steps, same_checkpoints=same)
        story.wrong = story.wrong or leftovers(at.cache)
    except (Wrong, TimeoutError) as wrong:
        story.wrong = str(wrong)
    if story.wrong is None:
        shutil.rmtree(folder)
    return story


def _live(
    story: Lived, case: Case, straight: Straight, setting: Setting, random_: random.Random, at: Surroundings
) -> None:
    run_dir = at.folder / "run"
    blows, seat, kept = random_.randint(1, MOST_BLOWS), Seat(), None
    while True:
        newest = max(checkpoints_by_step(run_dir), default=None)
        if kept is not None and (newest is None or newest < kept) and not case.goes_back:
            raise Wrong(f"lost: checkpoint {kept} was there, and after the next process it is {newest}")
        kept = newest
        is_fresh = case.prelude is None and random_.random() < setting.fresh_share
        blow = None
        if len(story.struck) < blows:
            seconds = setting.fresh_seconds if is_fresh else straight.seconds
            blow = drawn_blow(
                random_,
                calls=straight.calls,
                seconds=seconds,
                may_hold_up=setting.holds_up and not is_fresh,
                may_be_gentle=not case.goes_back,
            )
            if is_fresh and blow.in_place is not None:
                blow = Blow(after_seconds=random_.uniform(0, seconds))
        words = case.started(setting.workshop, run_dir)
        if newest is not None:
            words = ["train", f"--resume={run_dir}"] if random_.random() < 0.5 else [*words, "--resume"]
        printed_before = at.printed.stat().st_size if at.printed.exists() else 0
        victim = _victim(words, at, seat, case, blow, is_fresh=is_fresh)
        end = watched(victim, blow, seat, (at.folder,))
        _check(end, newest, at.printed, printed_before, is_fresh=is_fresh)
        if end.struck:
            left = max(checkpoints_by_step(run_dir), default=None)
            place = IN_A_FRESH_PROCESS if is_fresh else end.place
            story.struck.append(Struck(str(blow), place, end.call, end.killed, left))
        if end.code == 0:
            return


def _victim(
    words: list[str], at: Surroundings, seat: Seat, case: Case, blow: Blow | None, *, is_fresh: bool
) -> Victim:
    if is_fresh:
        seat.clear()
        return fresh(words, at)
    held_up = blow is not None and blow.at_call is not None
    return forked(words, at, seat, held_up=held_up, prelude=case.prelude)


def _check(end: End, newest: int | None, printed: Path, offset: int, *, is_fresh: bool) -> None:
    """Nothing, when the process ended as it may, and went on from the newest checkpoint."""
    text = printed.read_text(encoding="utf-8", errors="replace")[offset:]
    allowed = (0, -signal.SIGKILL, *_STOPPED) if end.struck else (0,)
    if end.code not in allowed:
        raise Wrong(f"a process ended with {end.code}: {_last_line(printed, offset)}")
    # Python's own imports, in a fresh process, know nothing of a polite end.
    if "Traceback" in text and not (is_fresh and text.rstrip().endswith("KeyboardInterrupt")):
        raise Wrong(f"a traceback: {_last_line(printed, offset)}")
    resumed = _RESUMED.search(text)
    if resumed is not None and int(resumed[1]) != newest:
        raise Wrong(f"lost: it went on from step {resumed[1]}, and checkpoint {newest} was there")


def _last_line(printed: Path, offset: int) -> str:
    lines = printed.read_text(encoding="utf-8", errors="replace")[offset:].strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
