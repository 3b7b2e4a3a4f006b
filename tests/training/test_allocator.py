import platform
import subprocess
import sys
from contextlib import ExitStack

import pytest

from minigpt.training.allocator import keep_buffers

glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

TOUCHED_AGAIN = """
import resource
from contextlib import ExitStack
from pathlib import Path
import numpy as np
from minigpt.training.allocator import keep_buffers

def faults_of_ten_buffers():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(4 << 20, dtype=np.float64)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

fresh = faults_of_ten_buffers()
with ExitStack() as stack:
    assert keep_buffers(stack)
    faults_of_ten_buffers()
    kept, resident = faults_of_ten_buffers(), resident_mib()
print(fresh, kept, resident, resident_mib())
"""


@glibc_only
def test_buffers_are_mapped_once_and_given_back_at_the_end() -> None:
    # A process of its own: glibc's thresholds are the whole process's.
    done = subprocess.run([sys.executable, "-c", TOUCHED_AGAIN], capture_output=True, text=True, check=True)
    fresh, kept, resident, afterwards = map(int, done.stdout.split())
    assert kept < fresh / 10
    assert afterwards < resident - 16  # MiB: the buffer itself has 32


@glibc_only
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_PRELOAD", "/usr/lib/libtcmalloc.so.4"),
        ("MALLOC_TRIM_THRESHOLD_", "100000"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=100000"),
    ],
)
def test_users_own_choice_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        assert not keep_buffers(stack)


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with ExitStack() as stack:
        assert not keep_buffers(stack)
