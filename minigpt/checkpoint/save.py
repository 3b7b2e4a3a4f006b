"""Writing a checkpoint so that a crash at any instant leaves the old one or the new one, never half of either."""

import shutil
from pathlib import Path
from typing import Any

import torch

from minigpt.atomic import atomic_path
from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.files import FORMAT, checkpoint_path, checkpoints_by_step, steps_to_delete
from minigpt.errors import CheckpointError


def save_checkpoint(run_dir: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` (plain data and tensors) as the checkpoint after `step` updates.

    Raises:
        CheckpointError: the disk refuses; the checkpoints that were there are untouched.
    """
    path = checkpoint_path(run_dir, step)
    try:
        with atomic_path(path) as temporary:
            torch.save({"format": FORMAT, "step": step, **state}, temporary)
    # torch's zip writer reports a full disk as a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot write {path}: {_reason(error, path)}; the checkpoints before it are whole; free space or "
            "choose another place with --run-dir, and go on with --resume"
        ) from error
    return path


def apply_retention(run_dir: Path, config: CheckpointConfig, protected: set[int]) -> list[int]:
    """Delete the checkpoints that need not stay; the steps deleted."""
    paths = checkpoints_by_step(run_dir)
    deleted = steps_to_delete(paths, config, protected)
    for step in deleted:
        paths[step].unlink(missing_ok=True)
    return deleted


def _reason(error: OSError | RuntimeError, path: Path) -> str:
    """One line; of a full disk, torch says only that a position in its archive is not the expected one."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "unexpected pos" in str(error) or "file write failed" in str(error):
        return f"the disk is full or broken ({shutil.disk_usage(path.parent).free:,} bytes left)"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
