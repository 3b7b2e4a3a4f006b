"""What a held-up call is about: which file, in words, and what half of it would have done."""

import contextlib
import ctypes
import os
import platform
import struct
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
    if call.name not in ("write", "writev"):
        return
    with contextlib.suppress(OSError):
        data = _data(call)
        facts = Path(f"/proc/{call.thread}/fdinfo/{call.arguments[0]}").read_text().split()
        appends = int(facts[facts.index("flags:") + 1], 8) & os.O_APPEND
        with call.path.open("r+b") as file:
            file.seek(*((0, os.SEEK_END) if appends else (int(facts[facts.index("pos:") + 1]), os.SEEK_SET)))
            file.write(data[: len(data) // 2])


def _data(call: FileCall) -> bytes:
    """What a write or writev is about to write."""
    _, address, size, *_ = call.arguments
    if call.name == "write":
        return _memory(call.thread, address, size)
    pieces = struct.iter_unpack("=QQ", _memory(call.thread, address, 16 * size))
    return b"".join(_memory(call.thread, *piece) for piece in pieces)


def _memory(thread: int, address: int, size: int) -> bytes:
    """At most `size` bytes of the caller's memory: fewer where it ends."""
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(size)


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
    return Path(f"/proc/{thread}/fd/{descriptor}").readlink()


def _resolved(thread: int, folder: int, address: int) -> Path:
    """The absolute path of a path that is given relative to an open folder."""
    text = _memory(thread, address, _LONGEST_PATH)
    path = Path(os.fsdecode(text.partition(b"\0")[0]))
    number = ctypes.c_int(folder & 0xFFFFFFFF).value
    base = Path(f"/proc/{thread}/cwd").readlink() if number == _HERE else _opened(thread, number)
    return base / path
