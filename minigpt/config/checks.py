"""Checks of numbers that must fit one another across sections."""

from minigpt.config.run_config import RunConfig
from minigpt.errors import ConfigError


def check_batch(config: RunConfig, world_size: int) -> None:
    """Raises ConfigError unless tokens_per_step divides into whole micro-batches over `world_size` ranks."""
    context_length, micro_batch_size = config.model.context_length, config.training.micro_batch_size
    names, numbers = ["context_length", "world_size"], [context_length, world_size]
    if micro_batch_size != "auto":
        names, numbers = ["micro_batch_size", *names], [micro_batch_size, *numbers]
    unit = 1
    for number in numbers:
        unit *= number
    wanted = config.training.tokens_per_step
    if wanted % unit:
        fits = [str(steps * unit) for steps in (wanted // unit, wanted // unit + 1) if steps]
        raise ConfigError(
            f"training.tokens_per_step = {wanted} is not a multiple of {' x '.join(names)} = "
            f"{' x '.join(map(str, numbers))} = {unit}; use {' or '.join(fits)}"
        )


def advice(config: RunConfig) -> list[str]:
    """Lines on what is allowed but probably not meant."""
    lines = []
    warmup_steps, max_steps = config.schedule.warmup_steps, config.training.max_steps
    if warmup_steps >= max_steps:
        lines.append(
            f"schedule.warmup_steps = {warmup_steps} is not shorter than training.max_steps = {max_steps}, "
            "so the learning rate only rises: fine for a try-out; for a whole run of this length use "
            f"schedule.warmup_steps={max(1, max_steps // 15)}"
        )
    return lines
