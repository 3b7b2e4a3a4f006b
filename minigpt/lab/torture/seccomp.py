"""Every call of a process that changes a file, held up before it is carried out (Linux, seccomp's user notification).

The kernel asks the watching process, which sees the call's arguments and lets it go on, or kills. No debugger, no root.
Source: seccomp_unotify(2), linux/seccomp.h, linux/filter.h.
"""

import ctypes
import fcntl
import os
import platform
import socket
import struct
import sys

NUMBERS = {
    "x86_64": {
        "write": 1, "pwrite64": 18, "writev": 20, "sendfile": 40, "fsync": 74, "fdatasync": 75, "truncate": 76,
        "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "open": 2,
        "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "linkat": 265, "renameat2": 316,
        "copy_file_range": 326,
    },
    "aarch64": {
        "write": 64, "pwrite64": 68, "writev": 66, "sendfile": 71, "fsync": 82, "fdatasync": 83, "truncate": 45,
        "ftruncate": 46, "openat": 56, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "linkat": 37,
        "renameat2": 276, "copy_file_range": 285,
    },
}  # fmt: skip
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_WITH_FLAGS = {"open": 1, "openat": 2}
"""Which argument holds the flags: opening only to read changes nothing."""
_TO_A_FILE = ("write", "writev")
"""Their first argument is 0, 1 or 2 for the terminal."""

_LOAD, _EQUAL, _ANY_BIT, _ABOVE, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_ARGUMENTS_AT = 16
"""Offset of the six arguments (8 bytes each, the low half first) in struct seccomp_data."""
_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_GO_ON = 1


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def refusal() -> str | None:
    """Why calls cannot be held up here; None: they can. The calling process must have no other thread."""
    if (why := foreign_machine()) is not None:
        return why
    ours, its = socket.socketpair()
    with ours, its:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                hold_up_calls(its)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
    return None if status == 0 else "the kernel, or the sandbox, refuses seccomp's user notification"


def foreign_machine() -> str | None:
    """Why this system's calls are not known here; None: they are."""
    if sys.platform == "linux" and platform.machine() in NUMBERS:
        return None
    return f"this is {sys.platform} on {platform.machine()}, not Linux on x86_64 or aarch64"


def hold_up_calls(peer: socket.socket) -> None:
    """From now on each call of this process waits for whoever holds the descriptor that goes to `peer`.

    Raises:
        OSError: the kernel refuses (a sandbox without seccomp).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = _instructions(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP[platform.machine()], _SET_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp refuses a listener")
    socket.send_fds(peer, [b"!"], [listener])
    os.close(listener)


def receive(listener: int) -> tuple[int, int, int, tuple[int, ...]]:
    """The next call that waits: its id, its thread, its number and its six arguments.

    Raises:
        OSError: the caller died meanwhile.
    """
    notice = bytearray(80)
    fcntl.ioctl(listener, _RECEIVE, notice)
    ticket, thread, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", notice)
    return ticket, thread, number, tuple(arguments)


def let_go_on(listener: int, ticket: int) -> None:
    """The call with this id is carried out.

    Raises:
        OSError: the caller died meanwhile.
    """
    fcntl.ioctl(listener, _SEND, bytearray(struct.pack("=QqiI", ticket, 0, 0, _GO_ON)))


def _instructions(machine: str) -> bytes:
    """The filter: notify of the calls above, let all others pass."""
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _ALLOW)]
    for name, number in NUMBERS[machine].items():
        own: list[tuple[int, int, int, int]] = []
        if name in _WITH_FLAGS:
            changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            own += [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * _WITH_FLAGS[name]), (_ANY_BIT, 1, 0, changing)]
            own += [(_RETURN, 0, 0, _ALLOW)]
        elif name in _TO_A_FILE:
            own += [(_LOAD, 0, 0, _ARGUMENTS_AT), (_ABOVE, 1, 0, 3), (_RETURN, 0, 0, _ALLOW)]
        own += [(_RETURN, 0, 0, _NOTIFY)]
        lines += [(_LOAD, 0, 0, 0), (_EQUAL, 0, len(own), number), *own]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
