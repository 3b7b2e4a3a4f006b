"""Writing a checkpoint so that a crash at any instant leaves the old one or the new one, never half of either."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.content import glance_at_checkpoint
from minigpt.checkpoint.damage import said_of
from minigpt.checkpoint.digest import write_sealed
from minigpt.checkpoint.files import FORMAT, checkpoint_path, checkpoints_by_step, steps_to_delete
from minigpt.errors import CheckpointError, NotWrittenError


def save_checkpoint(run_dir: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (plain data and tensors) as the checkpoint after `step` updates.

    Raises:
        NotWrittenError: the disk refuses; the checkpoints that were there are untouched.
    """
    path = checkpoint_path(run_dir, step)
    try:
        write_sealed(path, {"format": FORMAT, "step": step, **state})
    # torch's zip writer may report a full disk as a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = _reason(error, path)
        raise NotWrittenError(
            f"cannot write {path}: {reason}; the checkpoints before it are whole; free space or "
            "choose another place with --run-dir, and go on with --resume",
            reason,
        ) from error
    return path


@dataclass(frozen=True)
class Retention:
    """What letting go of old checkpoints came to."""

    deleted: list[int]
    """Their steps."""
    damaged: list[str]
    """A line for each file that is not what it should be."""
    refused: str | None
    """The first one that could not be deleted, and why."""


def apply_retention(run_dir: Path, config: CheckpointConfig, protected: set[int]) -> Retention:
    """Delete the checkpoints that need not stay.

    The ones that stay for it are read first: a damaged one is no reason to delete a good one. It is not counted, and
    goes when it would have gone as a good one.
    """
    # A folder is not ours.
    paths = {step: path for step, path in checkpoints_by_step(run_dir).items() if not _is_folder(path)}
    if not steps_to_delete(paths, config, protected):
        return Retention([], [], None)
    damaged = _damaged_among_newest(paths, config.keep_last)
    deleted, refused = [], None
    for step in steps_to_delete(paths.keys() - damaged.keys(), config, protected):
        try:
            paths[step].unlink(missing_ok=True)
            deleted.append(step)
        except OSError as error:
            refused = refused or f"{paths[step]} need not stay and cannot be deleted: {error.strerror}"
    return Retention(deleted, list(damaged.values()), refused)


def _damaged_among_newest(paths: dict[int, Path], count: int) -> dict[int, str]:
    """The damaged checkpoints that are newer than the `count`-th good one, with what is wrong with each."""
    good, damaged = 0, {}
    for step in reversed(paths):
        try:
            glance_at_checkpoint(paths[step])
            good += 1
        except CheckpointError as error:
            damaged[step] = f"{said_of(paths[step], error)}; it does not count as one of checkpoint.keep_last"
        if good == count:
            break
    return damaged


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _reason(error: OSError | RuntimeError, path: Path) -> str:
    """One line; torch says only that a position in its archive is not the expected one, and what came before that."""
    if not isinstance(error, OSError) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "unexpected pos" in str(error) or "file write failed" in str(error):
        return f"the disk is full or broken ({shutil.disk_usage(path.parent).free:,} bytes left)"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
