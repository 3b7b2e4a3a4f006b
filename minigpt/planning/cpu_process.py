"""What a training process on a CPU takes beside its tensors: estimates, set by scripts/measure_memory.py."""

from minigpt.planning.workload import Workload

RUNTIME_BYTES = 300 << 20
"""Kernels' code and scratch memory, the optimizer's and the monitor's vectors, TensorBoard."""
COMPILER_BYTES = 250 << 20
"""torch's compiler: its modules, graphs and the code it made."""
HOLES = 0.6
"""Of what comes and goes: gradients that stay lie between activations that went, and the next ones do not fit there."""
HOLES_OF_ONE = 0.4
"""The same where nothing is accumulated."""
COMPILED_HOLES = 0.3
"""Compiled code asks for fewer and larger pieces, and uses them again itself."""


def heap_bytes(work: Workload, passing: int) -> int:
    """Beside `passing` bytes of tensors that come and go each step."""
    holes = COMPILED_HOLES if work.compiled else HOLES if work.accumulates else HOLES_OF_ONE
    return RUNTIME_BYTES + (COMPILER_BYTES if work.compiled else 0) + int(holes * passing)
