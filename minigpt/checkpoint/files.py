"""Checkpoint files of a run folder: their names, their order, and which of them stay."""

import re
from collections.abc import Collection
from pathlib import Path

from minigpt.checkpoint.config import CheckpointConfig

FORMAT = 3
"""Of a checkpoint's content; a reader refuses what is newer than itself. 1: before a run could be rolled back. In 1 and
2 the monitor's rules remembered other things, so that it starts afresh."""
NAME = re.compile(r"checkpoint_step_(\d+)\.pt")


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lives."""
    return run_dir / f"checkpoint_step_{step}.pt"


def checkpoint_step(path: Path) -> int | None:
    """The step in a checkpoint's name, or None if it is not named like one."""
    match = NAME.fullmatch(path.name)
    return int(match.group(1)) if match else None


def checkpoints_by_step(run_dir: Path) -> dict[int, Path]:
    """All checkpoint files of a run folder, oldest first."""
    found = {
        step: path
        for path in run_dir.glob("checkpoint_step_*.pt")
        if (step := checkpoint_step(path)) is not None
    }
    return dict(sorted(found.items()))


def steps_to_delete(
    steps: Collection[int], config: CheckpointConfig, protected: Collection[int] = ()
) -> list[int]:
    """The steps whose checkpoints may go: not among the last, not on the grid, not protected (best, healthy)."""
    newest = set(sorted(steps)[-config.keep_last :])
    grid = config.keep_every_steps
    return sorted(
        step
        for step in steps
        if step not in newest and step not in protected and not (grid and step % grid == 0)
    )
