"""Finding and reading checkpoints: safe (weights only), checked, and with the older one when the newest is damaged."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt.checkpoint.content import check_content, glance_at_checkpoint, is_good
from minigpt.checkpoint.damage import DamagedError, said_of
from minigpt.checkpoint.digest import read_sealed
from minigpt.checkpoint.files import checkpoint_step, checkpoints_by_step
from minigpt.checkpoint.health import healthy_newest_first
from minigpt.errors import CheckpointError


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's content, where it came from, and which newer ones were damaged (one line each)."""

    path: Path
    state: dict[str, Any]
    damaged: list[str] = field(default_factory=list)


def is_run_folder(place: Path) -> bool:
    """Whether checkpoints are looked for in `place`: a folder, but for one that lies where a checkpoint should."""
    return place.is_dir() and checkpoint_step(place) is None


def find_checkpoint(place: Path) -> Path:
    """The checkpoint file at `place`, or the newest one of the run folder `place`. What stands there is not looked at.

    Raises:
        CheckpointError: there is none.
    """
    if is_run_folder(place):
        return list(_candidates(place).values())[-1]
    if not os.path.lexists(place):
        raise CheckpointError(
            f"{place} is neither a checkpoint file nor a run folder; runs live in checkpoints/"
        )
    return place


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of one checkpoint file, on the CPU; only plain data and tensors are ever unpickled, and only after
    the checksum of the file's bytes was found right.

    Raises:
        DamagedError: the file is damaged, or no checkpoint of MiniGPT.
        CheckpointError: a newer MiniGPT wrote it.
    """
    state = read_sealed(path)
    check_content(path, state)
    found: dict[str, Any] = state
    return found


def load_given(place: Path) -> Loaded:
    """The one checkpoint that was asked for, never another in its place.

    Raises:
        CheckpointError: it is not there or cannot be read; the newest good one of its folder is named.
    """
    path = find_checkpoint(place)
    try:
        return Loaded(path, load_checkpoint(path))
    except DamagedError as error:
        others = (other for other in reversed(checkpoints_by_step(path.parent).values()) if other != path)
        good = next((other for other in others if is_good(other)), None)
        way_out = (
            "no other checkpoint of its folder is good" if good is None else f"the newest good one is {good}"
        )
        raise CheckpointError(f"{error}; {way_out}") from error


def load_newest(run_dir: Path, *, healthy: bool = False) -> Loaded:
    """The newest checkpoint of a run folder that can be read; with `healthy`, of those that are marked so.

    Raises:
        CheckpointError: there is none, or all are damaged.
    """
    damaged: list[str] = []
    paths: Iterable[Path] = reversed(_candidates(run_dir).values())
    if healthy:
        paths = (health.path for health in healthy_newest_first(run_dir, damaged))
    for path in paths:
        try:
            return Loaded(path, load_checkpoint(path), damaged)
        except CheckpointError as error:
            damaged.append(said_of(path, error))
    if healthy and len(damaged) < len(_candidates(run_dir)):
        raise CheckpointError(
            f"{run_dir} has no checkpoint that is marked healthy; --resume alone takes the newest good one"
        )
    raise CheckpointError(
        f"no checkpoint in {run_dir} can be read; the newest: {damaged[0]}; start without --resume"
    )


def newest_good(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that `load_newest` would take, and a line for each newer one that it would pass over."""
    damaged: list[str] = []
    for path in reversed(checkpoints_by_step(run_dir).values()):
        try:
            glance_at_checkpoint(path)
        except CheckpointError as error:
            damaged.append(said_of(path, error))
        else:
            return path, damaged
    return None, damaged


def _candidates(run_dir: Path) -> dict[int, Path]:
    paths = checkpoints_by_step(run_dir)
    if not paths:
        raise CheckpointError(f"{run_dir} has no checkpoint_step_N.pt; start without --resume")
    return paths
