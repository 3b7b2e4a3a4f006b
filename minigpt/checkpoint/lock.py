"""One run, one folder: a lock that dies with its process."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from minigpt.errors import CheckpointError

LOCK_NAMES = (".lock", ".lock_holder")


@contextmanager
def locked_folder(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process alone while the block runs.

    The kernel releases the lock when the process dies, so a killed run leaves nothing stale behind. A folder that was
    made for the lock and got nothing else in it goes again: a run that is refused leaves no trace.

    Raises:
        CheckpointError: another process trains in this folder, or it cannot be written.
    """
    lock_path, holder_path = (run_dir / name for name in LOCK_NAMES)
    made: list[Path] = []
    try:
        made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock = FileLock(lock_path, timeout=0)
        lock.acquire()
        holder_path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout as error:
        holder = holder_path.read_text(encoding="utf-8") if holder_path.exists() else "another process"
        raise CheckpointError(
            f"{run_dir} is in use by {holder}; wait for it, or choose another folder with --run-dir"
        ) from error
    except OSError as error:
        _remove_if_unused(run_dir, made)
        raise CheckpointError(
            f"cannot write to the run folder {run_dir}: {_why(run_dir, error)}; choose another with --run-dir"
        ) from error
    try:
        yield
    finally:
        holder_path.unlink(missing_ok=True)
        _remove_if_unused(run_dir, made)
        lock.release()


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
