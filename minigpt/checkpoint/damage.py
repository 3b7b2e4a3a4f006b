"""What may be wrong with a file that a run wrote, in a line; and opening one without trusting what stands there."""

import errno
import os
import pickle
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minigpt.errors import CheckpointError, MiniGPTError


class DamagedError(CheckpointError):
    """A file that is not as it was written; `what` says why, without the file's name."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is damaged: {what}")
        self.what = what


def said_of(path: Path, error: CheckpointError) -> str:
    """A line of a list of damaged files."""
    return f"{path}: {error.what}" if isinstance(error, DamagedError) else str(error)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The regular file at `path`, for reading; anything else that may stand there is refused, and never waited for.

    Raises:
        DamagedError: there is none, or it cannot be read.
    """
    try:
        # To open a FIFO, without the flag, is to wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise DamagedError(path, _why_not_opened(path, error)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DamagedError(path, f"it is {_kind(mode)}, not a file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _why_not_opened(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is a link to what is not there" if path.is_symlink() else "it is not there"
    if error.errno == errno.ELOOP:
        return "it is a link that leads to itself"
    # So do sockets.
    return f"it cannot be opened: {error.strerror}"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a FIFO" if stat.S_ISFIFO(mode) else "a device"


@contextmanager
def said_as_damage(path: Path) -> Iterator[None]:
    """Whatever a damaged file leads to (BadZipFile, EOFError, UnpicklingError, KeyError ...) as a DamagedError."""
    try:
        yield
    except DamagedError:
        raise
    except Exception as error:
        # The machine's fault, and no reason to go back to an older one.
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise MiniGPTError(f"{path} does not fit into the memory of this machine") from error
        raise DamagedError(path, f"it cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """One line; torch's own about unsafe content is a page of advice to load it all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than plain data and tensors"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
