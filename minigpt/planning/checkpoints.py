"""How many checkpoints of a run lie on the disk at a time."""

from minigpt.checkpoint.config import CheckpointConfig


def most_checkpoints(config: CheckpointConfig, max_steps: int) -> int:
    """Those that stay, and one more while the next is being written."""
    keep = config.keep_last + config.keep_best + 1
    if config.keep_every_steps:
        keep += max_steps // config.keep_every_steps
    return keep
