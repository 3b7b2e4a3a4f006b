"""One run, one folder: a lock that dies with its process, and a folder that is known again."""

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minigpt.atomic import is_alive, sweep_leftovers
from minigpt.checkpoint.kernel_lock import LOCK_NAME, SOFT_LOCK_NAME, KernelLock, TakenError
from minigpt.errors import CheckpointError

RUN_DIR = "--run-dir"
HOLDER_NAME = ".lock_holder"
LOCK_NAMES = (LOCK_NAME, HOLDER_NAME, SOFT_LOCK_NAME)
_HOLDER = re.compile(r"process (?P<pid>\d+) on (?P<host>\S+)")
_HOLDER_SECONDS = 1.0
"""Within which a process that has taken the lock has also said who it is."""


@dataclass(frozen=True)
class Lost:
    """What has become of a held folder that is no longer where it was."""

    text: str
    is_deleted: bool
    """Whether it is gone for good; else it may come back (moved, its disk unmounted)."""


class HeldFolder:
    """A run folder that this process alone writes; `option` is the one that chooses another."""

    def __init__(self, path: Path, option: str = RUN_DIR) -> None:
        self.path = path
        self._option = option
        self._lock = _taken(path, option)
        self._identity = _identity(path)
        self.left_by = _signature(path)
        """The process that held it before and never let go: it was killed, or its machine went down."""

    def lost(self) -> Lost | None:
        """None while `path` leads to the folder that was locked: nobody else's is ever written."""
        try:
            there = _identity(self.path)
        except (FileNotFoundError, NotADirectoryError):
            there = None
        except OSError as error:
            return Lost(f"cannot be reached ({error.strerror})", is_deleted=False)
        if there == self._identity:
            return None
        place = "" if there is None else ", and another folder is in its place"
        now, is_deleted = self._whereabouts()
        return Lost(now + place, is_deleted)

    def take_anew(self) -> None:
        """Make the deleted folder again, empty, and hold it.

        Raises:
            CheckpointError: another run is in its place by now.
            OSError: it cannot be made.
        """
        lock = _taken(self.path, self._option)
        if any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            lock.release()
            raise CheckpointError(f"{self.path} was deleted, and holds something else by now")
        self._replace(lock)

    def _replace(self, lock: KernelLock) -> None:
        self._lock.release()
        self._lock, self._identity = lock, _identity(self.path)
        _sign(self.path)

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def _whereabouts(self) -> tuple[str, bool]:
        """Where the held folder is now, and whether it is deleted."""
        descriptor = self._lock.folder_descriptor
        try:
            if descriptor is None:
                return "is gone", False
            if os.fstat(descriptor).st_nlink == 0:
                return "was deleted", True
            found = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a Path would eat a trailing blank
            if found.endswith(" (deleted)"):
                return "was deleted", True
            # Of an unmounted disk the kernel names a path that leads elsewhere, or nowhere.
            if _identity(Path(found)) == self._identity:
                return f"was moved to {found}", False
        except OSError:
            pass
        return "is gone (its disk was unmounted?)", False


@contextmanager
def locked_folder(run_dir: Path, option: str = RUN_DIR) -> Iterator[HeldFolder]:
    """Hold `run_dir`, or another folder that `option` chooses, for this process alone while the block runs.

    The kernel releases the lock when the process dies, so a killed run leaves nothing stale behind; what it left half
    written is removed. A folder that was made for the lock and got nothing else in it goes again: a run that is
    refused leaves no trace.

    Raises:
        CheckpointError: another process trains in this folder, or it cannot be written.
    """
    made: list[Path] = []
    held = None
    try:
        made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        held = HeldFolder(run_dir, option)
        _sign(run_dir)
    except OSError as error:
        if held is not None:
            _remove_if_unused(run_dir, made)
            held.release()
        raise CheckpointError(
            f"cannot write to the {'run ' if option == RUN_DIR else ''}folder {run_dir}: {_why(run_dir, error)}; "
            f"choose another with {option}"
        ) from error
    try:
        sweep_leftovers(run_dir, alone=True)
        yield held
    finally:
        if held.lost() is None:
            with contextlib.suppress(OSError):  # read-only by now: the next one writes its own name over it
                (run_dir / HOLDER_NAME).unlink(missing_ok=True)
            _remove_if_unused(run_dir, made)
        held.release()


def _taken(run_dir: Path, option: str) -> KernelLock:
    """The lock on `run_dir`, which is made if it is not there.

    Raises:
        CheckpointError: another process has it.
        OSError: it cannot be made, opened or written.
    """
    waited = False
    for _ in range(100):
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            return KernelLock(run_dir)
        except FileNotFoundError:  # the one that held it had made it and removed it again
            continue
        except TakenError as error:
            holder = _holder(run_dir)
            if not waited and _is_dead(holder):
                # A child that it had forked just before it was killed has let go of the lock by now.
                waited = True
                continue
            raise CheckpointError(
                f"{run_dir} is in use by {holder}; wait for it, or choose another folder with {option}"
                + (_soft_way_out(run_dir) if error.soft else "")
            ) from error
    raise OSError(errno.EAGAIN, "it is removed by other processes all the time", str(run_dir))


def _soft_way_out(run_dir: Path) -> str:
    return (
        f" (its file system has no locks: if that process is not running, remove {run_dir / SOFT_LOCK_NAME})"
    )


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _sign(run_dir: Path) -> None:
    """Say who holds the folder; another user's file may be there, which can only be replaced."""
    (run_dir / HOLDER_NAME).unlink(missing_ok=True)
    (run_dir / HOLDER_NAME).write_text(_myself(), encoding="utf-8")


def _holder(run_dir: Path) -> str:
    """Who has the lock, as that process says itself: it may be about to, and a killed one's name still be there."""
    deadline, said = time.monotonic() + _HOLDER_SECONDS, ""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            said = (run_dir / HOLDER_NAME).read_text(encoding="utf-8")[:200]
        if _HOLDER.match(said) and not _is_dead(said):
            return said
        time.sleep(0.02)
    return said or "another process"


def _signature(run_dir: Path) -> str | None:
    """The name of a process that says it holds the folder."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        said = (run_dir / HOLDER_NAME).read_text(encoding="utf-8")[:200]
        if _HOLDER.match(said) and said.isprintable():
            return said
    return None


def _is_dead(holder: str) -> bool:
    """Whether the process that says it has the lock is known not to be there any more."""
    match = _HOLDER.match(holder)
    return match is not None and match["host"] == socket.gethostname() and not is_alive(int(match["pid"]))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _why(run_dir: Path, error: OSError) -> str:
    file = next((place for place in (run_dir, *run_dir.parents) if place.is_file()), None)
    return f"{file} is a file" if file is not None else str(error.strerror)


def _remove_if_unused(run_dir: Path, made: list[Path]) -> None:
    """Remove the folders `made` for the lock, innermost first, if they hold nothing else."""
    with contextlib.suppress(OSError):
        if made and all(path.name in LOCK_NAMES for path in run_dir.iterdir()):
            for name in LOCK_NAMES:
                (run_dir / name).unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()
