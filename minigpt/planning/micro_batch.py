"""The micro-batch that fits a device."""

from dataclasses import replace

from minigpt.planning.memory import memory_report
from minigpt.planning.workload import Workload

CPU_MICRO_BATCH_LIMIT = 16
"""Sequences that keep a CPU's cores busy: more only push the activations out of its caches."""
USABLE_FRACTION = 0.8
"""Of what is free: estimates err, and other programs come and go."""


def largest_micro_batch(
    work: Workload,
    *,
    sequences_per_rank_step: int,
    available_bytes: int | None,
    fraction: float = USABLE_FRACTION,
) -> int:
    """As `fitting_micro_batch`, but 1 where not even that fits: the run is tried all the same."""
    fitting = fitting_micro_batch(
        work,
        sequences_per_rank_step=sequences_per_rank_step,
        available_bytes=available_bytes,
        fraction=fraction,
    )
    return fitting or 1


def fitting_micro_batch(
    work: Workload,
    *,
    sequences_per_rank_step: int,
    available_bytes: int | None,
    fraction: float = USABLE_FRACTION,
) -> int | None:
    """The largest divisor of `sequences_per_rank_step` that fits `fraction` of the available memory, if any.

    `work.micro_batch_size` is not looked at. At most CPU_MICRO_BATCH_LIMIT on a CPU. Unknown available memory
    (None) counts as enough.
    """
    limit = sequences_per_rank_step
    if work.device_type == "cpu":
        limit = min(limit, CPU_MICRO_BATCH_LIMIT)
    if available_bytes is not None:
        usable = usable_bytes(work, available_bytes, fraction)
        whole = replace(work, micro_batch_size=limit, accumulates=limit < sequences_per_rank_step)
        if memory_report(whole).peak <= usable:
            return _largest_divisor(sequences_per_rank_step, limit)
        fits = most_sequences(replace(work, accumulates=True), usable, at_most=limit)
        if fits is None:
            return None
        limit = fits
    return _largest_divisor(sequences_per_rank_step, limit)


def _largest_divisor(number: int, limit: int) -> int:
    return next(size for size in range(limit, 0, -1) if number % size == 0)


def usable_bytes(work: Workload, available_bytes: int, fraction: float = USABLE_FRACTION) -> int:
    """What one rank may take: the ranks of a CPU run share the machine's memory."""
    return int(available_bytes * fraction / (work.world_size if work.device_type == "cpu" else 1))


def most_sequences(work: Workload, usable: int, *, at_most: int) -> int | None:
    """The largest micro-batch whose peak is within `usable` bytes; None if not even 1 is. The peak grows with it."""
    if memory_report(replace(work, micro_batch_size=1)).peak > usable:
        return None
    fits, too_many = 1, at_most + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if memory_report(replace(work, micro_batch_size=middle)).peak <= usable:
            fits = middle
        else:
            too_many = middle
    return fits
