"""What a held-up call is about: which file, in words, and what half of it would have done."""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from minigpt.lab.torture import seccomp

_NAMES = {number: name for name, number in seccomp.NUMBERS.get(platform.machine(), {}).items()}
_HERE = -100  # AT_FDCWD
_BY_DESCRIPTOR = ("write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate")
_BY_PATH = {"open": 0, "creat": 0, "truncate": 0, "mkdir": 0, "rmdir": 0, "unlink": 0, "rename": 0, "link": 0}
"""Index of the path's argument; `rename` and `link` have their second path right after it."""
_BY_FOLDER_AND_PATH = ("openat", "mkdirat", "unlinkat", "renameat", "renameat2", "linkat")
WRITES = ("write", "pwrite64", "writev", "sendfile", "copy_file_range")
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
REMOVALS = ("unlink", "unlinkat", "rmdir")
OPENS = ("open", "openat", "creat")
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class FileCall:
    """A call that is about to be carried out."""

    name: str
    path: Path
    """Of a rename: what is renamed."""
    target: Path | None
    """Of a rename or link: the new name."""
    thread: int
    arguments: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.path.name}" + (f" -> {self.target.name}" if self.target else "")


def file_call(thread: int, number: int, arguments: tuple[int, ...]) -> FileCall | None:
    """The call in words; None where it is about no file, or its caller has died."""
    name = _NAMES[number]
    try:
        path, target = _paths(name, thread, arguments)
    except (OSError, ValueError):
        return None
    return FileCall(name, path, target, thread, arguments)


def tear(call: FileCall) -> None:
    """Carry out the first half of a write, as if the process had died in the middle of it."""
    if call.name != "write":
        return
    descriptor, address, size = call.arguments[:3]
    with contextlib.suppress(OSError), Path(f"/proc/{call.thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        half = memory.read(size // 2)
        facts = Path(f"/proc/{call.thread}/fdinfo/{descriptor}").read_text().split()
        appends = int(facts[facts.index("flags:") + 1], 8) & os.O_APPEND
        with call.path.open("r+b") as file:
            file.seek(0 if not appends else 0, os.SEEK_END if appends else os.SEEK_SET)
            if not appends:
                file.seek(int(facts[facts.index("pos:") + 1]))
            file.write(half)


def _paths(name: str, thread: int, arguments: tuple[int, ...]) -> tuple[Path, Path | None]:
    if name in _BY_DESCRIPTOR:
        return _opened(thread, arguments[0]), None
    if name == "sendfile":
        return _opened(thread, arguments[0]), None
    if name == "copy_file_range":
        return _opened(thread, arguments[2]), None
    two = name.startswith(("rename", "link"))
    if name in _BY_FOLDER_AND_PATH:
        first = _resolved(thread, arguments[0], arguments[1])
        return first, _resolved(thread, arguments[2], arguments[3]) if two else None
    first = _resolved(thread, _HERE, arguments[_BY_PATH[name]])
    return first, _resolved(thread, _HERE, arguments[1]) if two else None


def _opened(thread: int, descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/{thread}/fd/{descriptor}"))


def _resolved(thread: int, folder: int, address: int) -> Path:
    """The absolute path of a path that is given relative to an open folder."""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        try:
            text = memory.read(_LONGEST_PATH)
        except OSError:  # it ends with its page
            memory.seek(address)
            text = memory.read(_LONGEST_PATH - address % _LONGEST_PATH)
    path = Path(os.fsdecode(text[: text.index(b"\0")]))
    folder = folder - (1 << 32) if folder & 0xFFFFFFFF >= 1 << 31 and folder >> 32 == 0 else folder
    folder = folder - (1 << 64) if folder >= 1 << 63 else folder
    base = Path(os.readlink(f"/proc/{thread}/cwd")) if folder == _HERE else _opened(thread, folder)
    return base / path
