"""What a process holds at a moment: memory, handles, threads, objects; and whether it grew."""

import gc
import os
import resource
import sys
import threading
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WARM_FRACTION = 0.4
"""Of the steps, before which windows and buffers still fill."""
MOST_OBJECTS_A_STEP = 0.02
"""One object in fifty steps: less than one a checkpoint."""
MOST_BYTES_A_STEP = 1024
"""Of resident memory; one Python object that is kept a step is found by the counts, and is smaller than this."""


@dataclass(frozen=True)
class Mark:
    """What the process held after `step`."""

    step: int
    rss_bytes: int
    handles: int
    threads: int
    objects: Counter[str]
    """Those that the garbage collector follows, by type."""
    traced: tuple[str, ...] = ()
    """Where most memory was allocated since the mark before, if that is traced."""

    def line(self) -> str:
        return (
            f"step {self.step:>8}  rss {self.rss_bytes / 2**20:8.1f} MiB  handles {self.handles:3d}  "
            f"threads {self.threads:2d}  objects {self.objects.total():8d}"
        )


class Marks:
    """Takes marks, and prints them as it goes."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._before: tracemalloc.Snapshot | None = None

    def take(self, step: int) -> Mark:
        gc.collect()
        objects = Counter(type(thing).__name__ for thing in gc.get_objects())
        mark = Mark(step, _rss_bytes(), _handles(), threading.active_count(), objects, self._traced())
        self.marks.append(mark)
        print("\n      ".join([mark.line(), *mark.traced]), flush=True)
        return mark

    def _traced(self) -> tuple[str, ...]:
        if not tracemalloc.is_tracing():
            return ()
        now, before = tracemalloc.take_snapshot(), self._before
        self._before = now
        if before is None:
            return ()
        return tuple(str(entry) for entry in now.compare_to(before, "lineno")[:5] if entry.size_diff > 0)


def growth(marks: list[Mark]) -> list[str]:
    """What grew after the windows had filled, one line each; [] is as it should be."""
    last = marks[-1]
    warm = next(mark for mark in marks if mark.step >= WARM_FRACTION * last.step)
    steps = last.step - warm.step
    if steps <= 0:
        return ["too few marks to tell: more steps, or more marks"]
    found = []
    if last.handles > warm.handles:
        found.append(f"file handles: {warm.handles} -> {last.handles}")
    if last.threads > warm.threads:
        found.append(f"threads: {warm.threads} -> {last.threads}")
    for name, count in (last.objects - warm.objects).most_common(5):
        if count > max(MOST_OBJECTS_A_STEP * steps, 3):
            found.append(f"objects of type {name}: {warm.objects[name]} -> {last.objects[name]}")
    rss = last.rss_bytes - warm.rss_bytes
    if rss > MOST_BYTES_A_STEP * steps and rss > 16 << 20:
        found.append(f"resident memory: {warm.rss_bytes >> 20} -> {last.rss_bytes >> 20} MiB")
    return found


def peak_rss_bytes() -> int:
    """The most that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _rss_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_rss_bytes()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _handles() -> int:
    open_files = Path("/proc/self/fd")
    return len(list(open_files.iterdir())) if open_files.exists() else 0
