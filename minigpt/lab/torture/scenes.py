"""Commands that are killed at every single call that changes a file, and what has to be true after the next one."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_newest
from minigpt.data.manifest import MANIFEST_DIGEST_NAME, MANIFEST_NAME, read_manifest
from minigpt.lab.torture.blow import Blow, watched
from minigpt.lab.torture.cases import NAME, Case
from minigpt.lab.torture.compare import difference, leftovers
from minigpt.lab.torture.life import Straight, Wrong, straight_run
from minigpt.lab.torture.matrix import TROUBLE
from minigpt.lab.torture.spoiled import spoil_data, stop_in_evaluation
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
OLD_SEED = 9
LONGER_AGO = Case(
    "longer ago", ("training.max_steps=6", "checkpoint.every_steps=3", f"training.seed={OLD_SEED}")
)
ALL_KEPT = Case("all kept", (*SHORT.sets, "checkpoint.keep_every_steps=1"))
ROLLED_BACK = Case("rolled back", (*TROUBLE, "training.max_steps=55"), spoil_data, goes_back=True)


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
    cache: Path | None = None
    """None: a trial has its own, empty one."""


def scenes(workshop: Path, folder: Path, only: str) -> list[Scene]:
    """Those with `only` in their name, with what they begin with made.

    Raises:
        Wrong: a run that they begin with fails.
    """
    wanted = {name: build for name, build in BUILDERS.items() if only.lower() in name}
    return [build(name, workshop, folder / str(index)) for index, (name, build) in enumerate(wanted.items())]


def _prepare(name: str, workshop: Path, folder: Path) -> Scene:
    words = ["prepare", "--config", str(workshop / f"{NAME}.yaml")]
    _run(words, folder, folder / "cache", SHORT)
    return Scene(
        name,
        SHORT,
        lambda trial: words,
        lambda trial: words,
        lambda trial: _cache_difference(folder / "cache", trial / "cache"),
    )


def _first_run(name: str, workshop: Path, folder: Path) -> Scene:
    straight = straight_run(SHORT, workshop, folder)
    return Scene(
        name,
        SHORT,
        lambda trial: SHORT.started(workshop, trial / "run"),
        lambda trial: _gone_on_with(SHORT, workshop, trial),
        lambda trial: _run_difference(straight, SHORT, trial),
        cache=straight.cache,
    )


def _resume(name: str, workshop: Path, folder: Path) -> Scene:
    return _resumed(name, SHORT, workshop, folder, killed_at=0.6)


def _rollback(name: str, workshop: Path, folder: Path) -> Scene:
    return _resumed(name, ROLLED_BACK, workshop, folder, killed_at=0.35)


def _made_up(name: str, workshop: Path, folder: Path) -> Scene:
    """A resume that has to make up for an evaluation that a signal had cut short."""
    scene = _resumed(name, SHORT, workshop, folder, killed_at=0.1)
    template = folder / "stopped"
    stopped = replace(SHORT, prelude=stop_in_evaluation)
    assert scene.cache is not None
    code = _run(SHORT.started(workshop, template / "run"), template, scene.cache, stopped)
    if code != 128 + signal.SIGTERM:
        raise Wrong(f"the run that was to be stopped ended with {code}")
    return replace(scene, template=template)


def _resumed(name: str, case: Case, workshop: Path, folder: Path, killed_at: float) -> Scene:
    straight = straight_run(case, workshop, folder / "straight")
    return Scene(
        name,
        case,
        lambda trial: ["train", f"--resume={trial / 'run'}"],
        lambda trial: _gone_on_with(case, workshop, trial),
        lambda trial: _run_difference(straight, case, trial),
        template=_killed(case, straight, workshop, folder / "killed", killed_at),
        cache=straight.cache,
    )


def _anew(name: str, workshop: Path, folder: Path) -> Scene:
    """A new run where an old one lies: that is moved aside whole, or is still where it was."""
    straight = straight_run(SHORT, workshop, folder / "straight")
    old = straight_run(LONGER_AGO, workshop, folder / "old")

    def again(trial: Path) -> list[str]:
        begun = checkpoints_by_step(trial / "run")
        is_old = not begun or load_newest(trial / "run").state["config"]["training"]["seed"] == OLD_SEED
        new = SHORT.started(workshop, trial / "run")
        return new if is_old else [*new, "--resume"]

    def check(trial: Path) -> str | None:
        return _run_difference(straight, SHORT, trial) or _kept_whole(old.run_dir, trial)

    def words(trial: Path) -> list[str]:
        return SHORT.started(workshop, trial / "run")

    return Scene(name, SHORT, words, again, check, template=old.run_dir.parent, cache=straight.cache)


def _back(name: str, workshop: Path, folder: Path) -> Scene:
    """From an older checkpoint: the later ones are moved, none is lost."""
    straight = straight_run(ALL_KEPT, workshop, folder)

    def check(trial: Path) -> str | None:
        wanted = {path.name: path.read_bytes() for path in checkpoints_by_step(straight.run_dir).values()}
        for name, content in wanted.items():
            if content not in [path.read_bytes() for path in (trial / "run").rglob(name)]:
                return f"lost: {name} as it was before is nowhere in {trial / 'run'}"
        return difference(straight.run_dir, trial / "run", ALL_KEPT.steps, same_checkpoints=True)

    return Scene(
        name,
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
            return None  # beside it there may be one of a run that never had a checkpoint
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
        if name.name == MANIFEST_DIGEST_NAME:
            # Of a manifest that tells how long the preparation took.
            read_manifest(entries[1][name].parent)
            continue
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
    if code != -signal.SIGKILL:
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
    return Surroundings(trial, scene.cache or trial / "cache", trial / "printed.txt")


BUILDERS: dict[str, Callable[[str, Path, Path], Scene]] = {
    "prepare": _prepare,
    "a first run": _first_run,
    "a resume": _resume,
    "a rollback": _rollback,
    "an evaluation made up for": _made_up,
    "a new run over an old one": _anew,
    "back to an older checkpoint": _back,
}
