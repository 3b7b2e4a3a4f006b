"""Whether a run's checkpoints fit on the disk: known before the first step, not after the first night."""

import shutil
from pathlib import Path

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.planning.checkpoints import most_checkpoints
from minigpt.planning.plan import bytes_text


def disk_warnings(
    run_dir: Path, checkpoints: CheckpointConfig, max_steps: int, checkpoint_bytes: int, *, goes_on: bool
) -> list[str]:
    """A line where the checkpoints to keep need more than the disk of `run_dir` (which exists) has left.

    Only a warning: what is free is an estimate (compression, quotas, snapshots), and the first save tells for sure.
    """
    try:
        usage = shutil.disk_usage(run_dir)
    except OSError:  # the first save tells for sure
        return []
    if not usage.total:  # some FUSE file systems do not know
        return []
    free = usage.free
    keep = most_checkpoints(checkpoints, max_steps)
    missing = max(1, keep - (len(checkpoints_by_step(run_dir)) if goes_on else 0))
    if free >= missing * checkpoint_bytes:
        return []
    return [
        f"{missing} checkpoints of {bytes_text(checkpoint_bytes)} are to come, the disk of {run_dir} has "
        f"{bytes_text(free)} left; free space, choose another disk with --run-dir, or lower checkpoint.keep_last"
    ]
