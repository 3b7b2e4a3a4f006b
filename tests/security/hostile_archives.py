"""Checkpoint files as an attacker makes them: the pickle opcode by opcode, the archive record by record."""

import pickle
import struct
import zipfile
from pathlib import Path

PROTO, STOP, MARK = pickle.PROTO + b"\x02", pickle.STOP, pickle.MARK


def word(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def whole(number: int) -> bytes:
    digits = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(digits)]) + digits


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """REDUCE: the global called with the arguments."""
    return (
        pickle.GLOBAL
        + f"{module}\n{name}\n".encode()
        + MARK
        + b"".join(arguments)
        + pickle.TUPLE
        + pickle.REDUCE
    )


def several(*values: bytes) -> bytes:
    return MARK + b"".join(values) + pickle.TUPLE


def tensor(
    *,
    key: str = "0",
    count: int = 4,
    offset: int = 0,
    size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    storage: str = "FloatStorage",
    function: str = "_rebuild_tensor_v2",
) -> bytes:
    """A tensor of a storage of `count` elements in the record data/`key`."""
    kind = pickle.GLOBAL + f"torch\n{storage}\n".encode()
    persistent = several(word("storage"), kind, word(key), word("cpu"), whole(count)) + pickle.BINPERSID
    return called(
        "torch._utils",
        function,
        persistent,
        whole(offset),
        several(*map(whole, size)),
        several(*map(whole, stride)),
        pickle.NEWFALSE,
        called("collections", "OrderedDict"),
    )


def checkpoint(value: bytes) -> bytes:
    """The pickle of a checkpoint of step 1 whose weights are `value`."""
    entries = [
        (word("format"), whole(3)),
        (word("step"), whole(1)),
        (word("model_state_dict"), pickle.EMPTY_DICT + word("embedding.weight") + value + pickle.SETITEM),
    ]
    return PROTO + pickle.EMPTY_DICT + b"".join(key + held + pickle.SETITEM for key, held in entries) + STOP


def write_archive(
    path: Path,
    content: bytes,
    *,
    records: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    more: list[tuple[str, bytes]] | None = None,
) -> Path:
    """An archive as torch writes it, with `records` (one of 16 bytes without) and `more`, names as they are."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", b"little")
        for key, data in (records or {"data/0": bytes(16)}).items():
            archive.writestr(f"a/{key}", data)
        archive.writestr("a/version", b"3\n")
        for name, data in more or []:
            archive.writestr(name, data)
    return path
