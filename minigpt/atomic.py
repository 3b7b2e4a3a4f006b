"""Files and folders that are complete or not there: built under a temporary name, renamed in one go."""

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"^\..+\.tmp-(?P<host>[0-9A-Za-z_]+)-(?P<pid>\d+)-[0-9a-f]+$")
_TEMPORARY_OF_RECORDS = re.compile(r"^\..+\.\d+\.tmp$")
_NO_FOLDER_SYNC = frozenset((errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))
"""Some file systems (FUSE, SMB) have no fsync for folders, and nothing to be done instead."""
_FOREIGN_LEFTOVER_SECONDS = 7 * 24 * 3600.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write; becomes `path`, durably, if all goes well, else vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path.parent)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def atomic_folder(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A temporary sibling folder to fill; becomes `path`, durably, if all goes well, else vanishes.

    A folder that stands at `path` by then is replaced, or with `keep_existing` wins over the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path.parent)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, files in os.walk(temporary, topdown=False):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))
        if keep_existing:
            _rename_unless_there(temporary, path)
        else:
            _replace_folder(temporary, path)
        sync(path.parent)
    except BaseException:
        _remove(temporary)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, byte for byte, so that no reader ever sees half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def remove_folder(path: Path) -> None:
    """Removes a folder so that nobody ever sees half of it; one that is not there is fine."""
    doomed = _temporary_sibling(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
        _remove(doomed)


def sweep_leftovers(folder: Path, *, alone: bool = False) -> None:
    """Removes what dead processes left under a temporary name in `folder`; live ones' work stays.

    `alone`: nobody else writes here, so all that has such a name is left over, whatever process wrote it: a container
    that was started again has the same process ids.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.match(entry.name)
            if (alone and is_temporary(entry.name)) or (match and _is_abandoned(entry, match)):
                _remove(Path(entry.path))


def is_temporary(name: str) -> bool:
    """Whether a file of this name is half of something, or was."""
    return bool(_TEMPORARY.match(name) or _TEMPORARY_OF_RECORDS.match(name))


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}")


def _host() -> str:
    # Machines and containers may share the folder; a process id means something only in its own namespace.
    name = re.sub(r"[^0-9A-Za-z]", "_", socket.gethostname()) or "localhost"
    try:
        return f"{name}_{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux
        return name


def _is_abandoned(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    if match["host"] != _host():
        try:
            age = _now_on_disk(Path(entry.path).parent) - entry.stat(follow_symlinks=False).st_mtime
            return age > _FOREIGN_LEFTOVER_SECONDS
        except OSError:
            return False
    return not is_alive(int(match["pid"]))


def _now_on_disk(folder: Path) -> float:
    """The time by the clock that stamps files there: on a shared disk its server's, so a clock of this host that was
    set ahead by years does not make another host's work look abandoned."""
    probe = _temporary_sibling(folder / "clock")
    try:
        probe.touch()
        return min(probe.stat().st_mtime, time.time())
    finally:
        probe.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine may still be there."""
    if os.name == "nt":  # there, os.kill(pid, 0) would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _rename_unless_there(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        _remove(temporary)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Renames `temporary` to `path`; a folder already there is first moved out of the way, then removed."""
    for _ in range(100):
        try:
            temporary.rename(path)
            return
        except OSError:
            if not path.exists():
                raise
        remove_folder(path)
    raise OSError(f"{path} is replaced by other processes faster than by this one")


def sync(path: Path) -> None:
    """Forces a file's bytes, or the names in a folder, to the disk; folders cannot be opened for that everywhere."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    try:
        descriptor = os.open(path, flags)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_FOLDER_SYNC):
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
