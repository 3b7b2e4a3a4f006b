"""Commands that are killed at every single call that changes a file, and what has to be true after the next one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_newest
from minigpt.data.manifest import MANIFEST_NAME
from minigpt.lab.torture.blow import Blow, watched
from minigpt.lab.torture.cases import NAME, Case
from minigpt.lab.torture.compare import difference, leftovers
from minigpt.lab.torture.life import Straight, Wrong, straight_run
from minigpt.lab.torture.matrix import TROUBLE
from minigpt.lab.torture.spoiled import spoil_data
from minigpt.lab.torture.victim import Surroundings, forked
from minigpt.lab.torture.whereabouts import Seat

SHORT = Case(
    "short",
    (
        "training.max_steps=8",
        "checkpoint.every_steps=2",
        "checkpoint.keep_last=1",
        "training.check_grad_flow_every=3",
    ),
)
LONGER_AGO = Case("longer ago", ("training.max_steps=6", "checkpoint.every_steps=3", "training.seed=9"))
ALL_KEPT = Case("all kept", (*SHORT.sets, "checkpoint.keep_every_steps=1"))
ROLLED_BACK = Case("rolled back", (*TROUBLE, "training.max_steps=55"), spoil_data, goes_back=True)
CLOSE_TO_THE_END = 5


@dataclass(frozen=True)
class Scene:
    """A command in a folder, killed; the command that follows it; and the check of what both left."""

    name: str
    case: Case
    words: Callable[[Path], list[str]]
    """What is killed, for a trial's folder."""
    again: Callable[[Path], list[str]]
    """What is run next, undisturbed."""
    check: Callable[[Path], str | None]
    """What is wrong with the trial's folder afterwards."""
    template: Path | None = None
    """What a trial's folder holds to begin with."""
    own_cache: bool = False
    cache: Path | None = None


def scenes(workshop: Path, folder: Path) -> list[Scene]:
    """All of them, with what they begin with made.

    Raises:
        Wrong: a run that they begin with fails.
    """
    straight = straight_run(SHORT, workshop, folder / "short")
    kept = straight_run(ALL_KEPT, workshop, folder / "kept")
    old = straight_run(LONGER_AGO, workshop, folder / "old")
    rolled = straight_run(ROLLED_BACK, workshop, folder / "rolled")
    prepared = folder / "prepared"
    _run(["prepare", "--config", str(workshop / f"{NAME}.yaml")], prepared, prepared / "cache", SHORT)
    return [
        _prepare(workshop, prepared / "cache"),
        _first_run(workshop, straight),
        _resume(
            workshop, straight, SHORT, _killed(SHORT, straight, workshop, folder / "killed", 0.6), "a resume"
        ),
        _resume(
            workshop,
            rolled,
            ROLLED_BACK,
            _killed(ROLLED_BACK, rolled, workshop, folder / "trouble", 0.35),
            "a rollback, in a resume",
        ),
        _anew(workshop, straight, old),
        _back(workshop, kept),
    ]


def _prepare(workshop: Path, reference: Path) -> Scene:
    words = ["prepare", "--config", str(workshop / f"{NAME}.yaml")]
    return Scene(
        "prepare",
        SHORT,
        lambda trial: words,
        lambda trial: words,
        lambda trial: _cache_difference(reference, trial / "cache"),
        own_cache=True,
    )


def _first_run(workshop: Path, straight: Straight) -> Scene:
    return Scene(
        "a first run",
        SHORT,
        lambda trial: SHORT.started(workshop, trial / "run"),
        lambda trial: _gone_on_with(SHORT, workshop, trial),
        lambda trial: _run_difference(straight, SHORT, trial),
        cache=straight.cache,
    )


def _resume(workshop: Path, straight: Straight, case: Case, template: Path, name: str) -> Scene:
    return Scene(
        name,
        case,
        lambda trial: ["train", f"--resume={trial / 'run'}"],
        lambda trial: _gone_on_with(case, workshop, trial),
        lambda trial: _run_difference(straight, case, trial),
        template=template,
        cache=straight.cache,
    )


def _anew(workshop: Path, straight: Straight, old: Straight) -> Scene:
    """A new run where an old one lies: that is moved aside whole, or is still where it was."""

    def again(trial: Path) -> list[str]:
        begun = checkpoints_by_step(trial / "run")
        is_old = not begun or load_newest(trial / "run").state["config"]["training"]["seed"] == 9
        new = SHORT.started(workshop, trial / "run")
        return new if is_old else [*new, "--resume"]

    def check(trial: Path) -> str | None:
        return _run_difference(straight, SHORT, trial) or _kept_whole(old.run_dir, trial)

    template = old.run_dir.parent
    return Scene(
        "a new run over an old one",
        SHORT,
        lambda trial: SHORT.started(workshop, trial / "run"),
        again,
        check,
        template=template,
        cache=straight.cache,
    )


def _back(workshop: Path, straight: Straight) -> Scene:
    """From an older checkpoint: the later ones are moved, none is lost."""

    def check(trial: Path) -> str | None:
        wanted = {path.name: path.read_bytes() for path in checkpoints_by_step(straight.run_dir).values()}
        for name, content in wanted.items():
            if content not in [path.read_bytes() for path in (trial / "run").rglob(name)]:
                return f"lost: {name} as it was before is nowhere in {trial / 'run'}"
        return difference(straight.run_dir, trial / "run", ALL_KEPT.steps, same_checkpoints=True)

    return Scene(
        "back to an older checkpoint",
        ALL_KEPT,
        lambda trial: ["train", f"--resume={trial / 'run' / 'checkpoint_step_2.pt'}"],
        lambda trial: ["train", f"--resume={trial / 'run'}"],
        check,
        template=straight.run_dir.parent,
        cache=straight.cache,
    )


def _gone_on_with(case: Case, workshop: Path, trial: Path) -> list[str]:
    words = case.started(workshop, trial / "run")
    return [*words, "--resume"] if checkpoints_by_step(trial / "run") else words


def _run_difference(straight: Straight, case: Case, trial: Path) -> str | None:
    return difference(straight.run_dir, trial / "run", case.steps, same_checkpoints=case.same_checkpoints)


def _kept_whole(old: Path, trial: Path) -> str | None:
    """Whether one folder beside the new run holds all that the old one held."""
    wanted = {path.relative_to(old): path.read_bytes() for path in old.rglob("*") if _is_content(path)}
    beside = [path for path in trial.iterdir() if path.name.startswith("run_")]
    for folder in beside:
        if all((folder / name).is_file() and (folder / name).read_bytes() == wanted[name] for name in wanted):
            return None if len(beside) == 1 else f"moved to several folders: {[path.name for path in beside]}"
    found = {path.name: sorted(str(entry.relative_to(path)) for entry in path.rglob("*")) for path in beside}
    return f"the old run is in no folder whole: {json.dumps(found)}"


def _cache_difference(reference: Path, cache: Path) -> str | None:
    entries = [
        {path.relative_to(at): path for path in at.rglob("*") if _is_content(path)}
        for at in (reference, cache)
    ]
    if entries[0].keys() != entries[1].keys():
        return f"the cache has {sorted(map(str, entries[1]))}, not {sorted(map(str, entries[0]))}"
    for name, path in entries[0].items():
        contents = [path.read_bytes(), entries[1][name].read_bytes()]
        if name.name == MANIFEST_NAME:
            contents = [json.dumps(json.loads(text) | {"seconds": 0}).encode() for text in contents]
        if contents[0] != contents[1]:
            return f"the cache's {name} is another"
    return leftovers(cache)


def _is_content(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".lock")


def _killed(case: Case, straight: Straight, workshop: Path, folder: Path, share: float) -> Path:
    """A folder with a run that was killed after this share of its file calls."""
    at = int(straight.calls * share)
    code = _run(case.started(workshop, folder / "run"), folder, straight.cache, case, Blow(at_call=at))
    if code != -9:
        raise Wrong(f"the run that was to be killed ended with {code}")
    return folder


def _run(words: list[str], folder: Path, cache: Path, case: Case, blow: Blow | None = None) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    at, seat = Surroundings(folder, cache, folder / "printed.txt"), Seat()
    victim = forked(words, at, seat, held_up=blow is not None, prelude=case.prelude)
    return watched(victim, blow, seat, (folder,)).code


def laid_out(scene: Scene, trial: Path) -> Surroundings:
    """A trial's folder as the scene begins, and where its commands run."""
    if scene.template is not None:
        shutil.copytree(scene.template, trial)
    trial.mkdir(parents=True, exist_ok=True)
    cache = scene.cache if scene.cache is not None and not scene.own_cache else trial / "cache"
    return Surroundings(trial, cache, trial / "printed.txt")
