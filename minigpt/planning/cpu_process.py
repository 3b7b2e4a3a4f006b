"""What a training process on a CPU takes beside its tensors: estimates, set by scripts/measure_memory.py."""

from minigpt.planning.workload import Workload

RUNTIME_BYTES = 300 << 20
"""Kernels' code and scratch memory, the optimizer's and the monitor's vectors, TensorBoard."""
COMPILER_BYTES = 250 << 20
"""torch's compiler: its modules, graphs and the code it made."""
HEAP_DIVISOR = 5
"""A fifth of what comes and goes is lost to holes."""


def heap_bytes(work: Workload, passing: int) -> int:
    """Beside `passing` bytes of tensors that come and go each step."""
    return RUNTIME_BYTES + (COMPILER_BYTES if work.compiled else 0) + passing // HEAP_DIVISOR
