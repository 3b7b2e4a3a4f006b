"""One run, one folder: a lock that dies with its process."""

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

    The kernel releases the lock when the process dies, so a killed run leaves nothing stale behind.

    Raises:
        CheckpointError: another process trains in this folder, or it cannot be written.
    """
    lock_path, holder_path = (run_dir / name for name in LOCK_NAMES)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path, timeout=0)
        lock.acquire()
        holder_path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout as error:
        holder = holder_path.read_text(encoding="utf-8") if holder_path.exists() else "another process"
        raise CheckpointError(
            f"{run_dir} is in use by {holder}; wait for it, or choose another folder with --run-dir"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"cannot write to the run folder {run_dir}: {error.strerror}; choose another with --run-dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
