"""What a training process on a CPU takes beside its tensors: estimates, set by scripts/measure_memory.py.

glibc aligns what torch asks for by asking for a little more, so a buffer that went does not hold the next of the same
size: the heap comes to about twice what is there at once (measured: 1,400 MiB for 900 MiB of tensors, 2,700 for 1,470
with full activation checkpointing; with a mapping for each buffer 1,010 and 1,600, at half the speed). What makes holes
is every activation that comes and goes, kept or computed again.
"""

from minigpt.planning.workload import Workload

RUNTIME_BYTES = 270 << 20
"""Kernels' code and scratch memory, the monitor's vectors, TensorBoard; where it compiles, torch's compiler."""
HOLES = 0.95
"""Of a micro-batch's activations: gradients that stay lie between those that went."""
HOLES_OF_ONE = 0.45
"""The same where nothing is accumulated."""
HOLES_RECOMPUTED = 0.7
"""With activation checkpointing, of what would be kept without it."""
COMPILED_HOLES = 0.3
"""Compiled code asks for fewer and larger pieces, and uses them again itself."""


def heap_bytes(work: Workload, activations: int) -> int:
    """Beside the tensors of a step whose micro-batch keeps `activations` bytes where it computes nothing again."""
    return RUNTIME_BYTES + int(_holes(work) * activations)


def _holes(work: Workload) -> float:
    if work.compiled:
        return COMPILED_HOLES
    if work.recompute != "off":
        return HOLES_RECOMPUTED
    return HOLES if work.accumulates else HOLES_OF_ONE
