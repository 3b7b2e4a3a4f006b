"""What the disk refuses a run: since when, how to say it, and when to try again."""

import contextlib
import errno
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import newest_good
from minigpt.errors import NotWrittenError
from minigpt.planning.plan import bytes_text

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_WAYS_OUT = {
    errno.EDQUOT: "make room in your quota",
    errno.EACCES: "give the right to write it back",
    errno.EPERM: "give the right to write it back",
    errno.EROFS: "make its disk writable again (remount it; see dmesg)",
    errno.EIO: "see to its disk (dmesg tells more)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
    errno.ESTALE: "mount its disk again",
}
_LONGEST_WAIT_MINUTES = 15.0


@dataclass
class Unsaved:
    """A state that the disk has refused, and the tries to write a later one."""

    step: int
    """Whose checkpoint was the first to be refused."""
    reason: str
    way_out: str
    tries: int = 1
    tried_step: int = 0
    tried_at: float = 0.0
    """On the monotonic clock, seconds."""

    def is_due(self, step: int) -> bool:
        """Whether to try again: after 1, 2, 4, ... steps or minutes, so that a disk that stays full costs little."""
        wait = 1 << min(self.tries - 1, 62)
        minutes = (time.monotonic() - self.tried_at) / 60
        return step - self.tried_step >= wait or minutes >= min(wait, _LONGEST_WAIT_MINUTES)


@dataclass
class Refusals:
    """What the disk refuses at present; on the main rank, which alone writes."""

    unsaved: Unsaved | None = None
    undeleted: str | None = None
    """What keeps checkpoints that need not stay from being deleted; said when it began."""
    damaged: frozenset[str] = frozenset()
    """Lines on damaged checkpoints, said already."""
    best_saved: int | None = None
    """The last step that was the best so far and whose checkpoint this process has written."""

    def note(self, step: int, error: NotWrittenError) -> bool:
        """Keep in mind that `step` was not written; whether that is news."""
        before = self.unsaved
        is_news = before is None or before.reason != error.reason
        if before is None:
            self.unsaved = before = Unsaved(step, error.reason, way_out(error))
        else:
            before.reason, before.way_out, before.tries = error.reason, way_out(error), before.tries + 1
        before.tried_step, before.tried_at = step, time.monotonic()
        return is_news


def error_number(error: BaseException) -> int | None:
    """The system's number for what went wrong, from `error` or what it came from; None where nobody knows it."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno is not None:
            return at.errno
        # torch: "open file failed because of errno 24 on fopen: Too many open files"
        if isinstance(at, RuntimeError) and (told := re.search(r"\berrno (\d+)", str(at))):
            return int(told[1])
        at = at.__cause__ or at.__context__
    return None


def way_out(error: BaseException) -> str:
    """What helps against it."""
    return _WAYS_OUT.get(error_number(error) or 0, "free space on its disk")


def space_text(run_dir: Path) -> str:
    """What its disk has left, and what a checkpoint takes: "(150 kB left, the last checkpoint took 210 kB)"."""
    with contextlib.suppress(OSError):
        parts = [f"{_size(shutil.disk_usage(run_dir).free)} left"]
        if hasattr(os, "statvfs"):
            entries = os.statvfs(run_dir)
            if entries.f_files and not entries.f_favail:
                parts.append("no room for another file (inodes)")
        size = last_size(run_dir)
        if size:
            parts.append(f"the last checkpoint took {_size(size)}")
        return f" ({', '.join(parts)})"
    return ""


def _size(size_bytes: int) -> str:
    return bytes_text(size_bytes) if size_bytes >= 10 << 20 else f"{size_bytes / 1000:,.0f} kB"


def last_size(run_dir: Path) -> int | None:
    """Bytes of the newest checkpoint; None where there is none."""
    with contextlib.suppress(OSError):
        paths = list(checkpoints_by_step(run_dir).values())
        return paths[-1].stat().st_size if paths else None
    return None


def newest_whole(run_dir: Path) -> Path | None:
    """The newest checkpoint that is whole, its checksums included, read without holding it in memory."""
    try:
        return newest_good(run_dir)[0]
    except OSError:
        return None


def out_of_reach(run_dir: Path) -> str | None:
    """Which checkpoint cannot be opened now although it is there, and why; None: each can."""
    harmless = (errno.ENOENT, errno.ELOOP)  # a link to nowhere
    for path in checkpoints_by_step(run_dir).values():
        try:
            # What else may stand in its place is never waited for.
            os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
        except OSError as error:
            if error.errno not in harmless:
                return f"{path}: {error.strerror}"
    return None
