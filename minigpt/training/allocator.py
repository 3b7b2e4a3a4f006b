"""Keeps a step's big buffers mapped from one step to the next, where the C library would give them back to the system.

glibc maps each large buffer anew and unmaps it when it is freed, so a step on a CPU meets its activations
as fresh pages, which the kernel has to clear and map one at a time. A product of matrices whose result is large (64 MiB
in bf16) then takes three to four times as long (measured, 4 threads of a Xeon with AMX). With its two thresholds raised
(mallopt(3)) the pages stay. What that is worth, the two in turn:
`scripts/bench_training.py --contenders minigpt minigpt:training.keep_buffers=false`.
"""

import ctypes
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = (1 << 30, 32 << 20)
"""Buffers below stay; older versions of glibc refuse more than 32 MiB."""
_NEVER = (1 << 31) - 1
_DEFAULT_THRESHOLD = 128 << 10
_OWN_CHOICE = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "LD_PRELOAD")


def keep_buffers(stack: ExitStack) -> bool:
    """Whether the process's big buffers stay mapped from here on, until `stack` closes; False where that is not ours.

    Only with glibc, and not where the user has chosen an allocator or its thresholds (LD_PRELOAD, GLIBC_TUNABLES,
    MALLOC_...). Closing the stack sets glibc's own first values and gives unused memory back; glibc's growing of its
    threshold by itself stays off for the rest of the process.
    """
    library = _glibc()
    if library is None:
        return False
    mallopt: Callable[[int, int], int] = library.mallopt
    if not any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGE):
        return False
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    stack.callback(_give_back, library)
    return True


def _give_back(library: ctypes.CDLL) -> None:
    library.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
    library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
    library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and its allocator is in use as it is."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    if any(os.environ.get(name) for name in _OWN_CHOICE) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    return ctypes.CDLL(None)
