"""What no machine like this one can train: said before anything is built, not by the kernel that kills the process."""

from dataclasses import replace

from minigpt.errors import ConfigError
from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Workload

_BEYOND = 4
"""So many times the free memory is refused: estimates err, and what is free may grow (other programs, swap)."""
_TOKEN_BYTES = 16
"""An input and a target, int64, of each token of a step."""


def check_conceivable(work: Workload, *, tokens_per_rank_step: int, available_bytes: int | None) -> None:
    """Nothing, unless the run needs a multiple of the free memory (None: unknown, and nothing is refused).

    Raises:
        ConfigError: it does; what needs it, how much, and which setting is smaller.
    """
    if available_bytes is None:
        return
    limit = _BEYOND * available_bytes
    least = memory_report(replace(work, micro_batch_size=1))
    has = f"and {_size(available_bytes)} are free here"
    if least.fixed > limit:
        raise ConfigError(
            f"model.num_layers = {work.model.num_layers} x model.hidden_size = {work.model.hidden_size} "
            f"(model.intermediate_size "
            f"= {work.model.resolved_intermediate_size}, vocabulary {work.vocab_size}) needs {_size(least.fixed)} "
            f"for weights, gradients and optimizer state, {has}; use smaller ones"
        )
    if _TOKEN_BYTES * tokens_per_rank_step > limit:
        raise ConfigError(
            f"training.tokens_per_step = {tokens_per_rank_step * work.world_size} needs "
            f"{_size(_TOKEN_BYTES * tokens_per_rank_step)} for the token ids of a step alone, {has}; use a smaller one"
        )
    if least.peak > limit:
        raise ConfigError(
            f"model.context_length = {work.model.context_length} needs about {_size(least.peak)} for one sequence, "
            f"{has}; use a smaller one"
        )
    if (peak := memory_report(work).peak) > limit:
        raise ConfigError(
            f"training.micro_batch_size = {work.micro_batch_size} needs about {_size(peak)}, {has}; use auto"
        )


def _size(count: int) -> str:
    return f"{count >> 30:,} GiB" if count < 1 << 70 else "more than 2^70 bytes"
