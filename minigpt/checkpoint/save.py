"""Writing a checkpoint so that a crash at any instant leaves the old one or the new one, never half of either."""

from pathlib import Path
from typing import Any

import torch

from minigpt.atomic import atomic_path
from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.files import checkpoint_path, checkpoints_by_step, steps_to_delete
from minigpt.errors import CheckpointError

FORMAT = 1


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
            f"cannot write {path}: {_first_line(error)}; free space or choose another place with --run-dir"
        ) from error
    return path


def apply_retention(run_dir: Path, config: CheckpointConfig, protected: set[int]) -> list[int]:
    """Delete the checkpoints that need not stay; the steps deleted."""
    paths = checkpoints_by_step(run_dir)
    deleted = steps_to_delete(paths, config, protected)
    for step in deleted:
        paths[step].unlink(missing_ok=True)
    return deleted


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
