"""A file damaged in every way of a kind, each tried on its reader: which damage would go unseen."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from minigpt.errors import MiniGPTError

Reader = Callable[[Path], object]


def unseen_cuts(path: Path, read: Reader, lengths: Iterable[int]) -> list[int]:
    """The lengths to which `path` can be cut without its reader noticing. It is whole again afterwards."""
    content = path.read_bytes()
    unseen = []
    for length in sorted(lengths, reverse=True):
        os.truncate(path, length)
        if not _refused(read, path):
            unseen.append(length)
    path.write_bytes(content)
    return unseen


def unseen_flips(path: Path, read: Reader, bits: Iterable[int]) -> list[int]:
    """The bits of `path`, counted from its start, that can flip without its reader noticing. It is whole afterwards."""
    unseen = []
    descriptor = os.open(path, os.O_RDWR)
    try:
        for bit in bits:
            own = os.pread(descriptor, 1, bit // 8)
            os.pwrite(descriptor, bytes([own[0] ^ 1 << bit % 8]), bit // 8)
            if not _refused(read, path):
                unseen.append(bit)
            os.pwrite(descriptor, own, bit // 8)
    finally:
        os.close(descriptor)
    return unseen


def _refused(read: Reader, path: Path) -> bool:
    """Whether the reader says what is wrong, in one line; whatever else it raises is a bug."""
    try:
        read(path)
    except MiniGPTError as error:
        return "\n" not in str(error)
    return False
