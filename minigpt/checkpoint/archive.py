"""What a .pt file must be before torch opens it: plain data and tensors that really lie in the file.

`torch.load(weights_only=True)` runs no code, but it believes a file's numbers: 600 bytes make it allocate gigabytes
(a bytearray, a new tensor), one element can be a tensor of a trillion, a deflated record unpacks to any size. So the
pickle is first read into stand-ins, by an unpickler that knows nothing but what MiniGPT writes.
"""

import io
import pickle
import stat
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.dry_run import UNSAFE, DryUnpickler, TensorStandIn, UnfitError

_MOST_PICKLE_BYTES = 64 << 20
_MOST_VALUES = 4_000_000
"""Counted as often as they are mentioned: a list of ten lists of ten lists ... is small only in the file."""
_DEEPEST = 32


def check_archive(path: Path) -> None:
    """Nothing, when torch.load can be trusted with the file: it will allocate no more than the file's own size.

    Raises:
        UnfitError: it cannot; one line that says why.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnfitError("it is no regular file")
        reader = torch._C.PyTorchFileReader(str(path))
        sizes = _record_sizes(reader, path)
        _check_pickle(reader.get_record("data.pkl"), sizes)
    # What a damaged or hostile archive raises has no common type.
    except Exception as error:
        raise UnfitError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    if isinstance(error, UnfitError):
        return str(error)
    if isinstance(error, pickle.UnpicklingError | KeyError | IndexError | TypeError | AttributeError):
        return UNSAFE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:200]


def _record_sizes(reader: Any, path: Path) -> dict[str, int]:
    """Unpacked bytes of every record by its name in the archive, as torch's own reader sees them."""
    names = reader.get_all_records()
    if len(set(names)) != len(names):
        raise UnfitError("a record stands in it twice")
    # Its constants make torch.load hand the file to torch.jit.load.
    if "constants.pkl" in names:
        raise UnfitError("it is TorchScript, no checkpoint")
    sizes = {name: int(reader.get_record_size(name)) for name in names}
    file_bytes = path.stat().st_size
    if sum(sizes.values()) > file_bytes:
        raise UnfitError(f"its records unpack to more than its own {file_bytes:,} bytes")
    # Checksums are looked at through zipfile, which must mean the same records.
    with zipfile.ZipFile(path) as archive:
        seen = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    if seen != sizes or not stored:
        raise UnfitError("its archive is not one that torch writes")
    if sizes.get("data.pkl", 0) > _MOST_PICKLE_BYTES:
        raise UnfitError(f"its plain data takes {sizes['data.pkl']:,} bytes")
    return sizes


def _check_pickle(content: bytes, sizes: dict[str, int]) -> None:
    left = _MOST_VALUES
    # A stack of iterators, because a list may hold itself a million times.
    waiting: list[Iterator[object]] = [iter([DryUnpickler(io.BytesIO(content), sizes).load()])]
    while waiting:
        for value in waiting[-1]:
            left -= 1
            if left < 0 or len(waiting) > _DEEPEST:
                raise UnfitError("its data are nested too deeply, or too many")
            if isinstance(value, dict):
                waiting.append(chain(value, value.values()))
                break
            if isinstance(value, list | tuple):
                waiting.append(iter(value))
                break
            if not _is_plain(value):
                raise UnfitError(UNSAFE)
        else:
            waiting.pop()


def _is_plain(value: object) -> bool:
    """Whether it is a single value that everybody can work with: a tensor, a word, a number of 64 bits."""
    if type(value) is str:
        return value.isascii() or value.encode("utf-8", "replace").decode("utf-8") == value
    if type(value) is int:
        return -(1 << 63) <= value < 1 << 64
    return value is None or type(value) in (bool, float, TensorStandIn)
