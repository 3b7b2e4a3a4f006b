"""Reads what Weights & Biases wrote offline."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path


def records(folder: Path) -> list[dict[str, float]]:
    """What was logged, read back from the file that `wandb sync` would send."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            all_of_it = [wandb_internal_pb2.Record.FromString(data) for data in _chunks(path.read_bytes())]
        except DecodeError:
            all_of_it = []
        if all_of_it and all_of_it[-1].WhichOneof("record_type") == "exit":
            return [
                {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in one.history.item
                }
                for one in all_of_it
                if one.WhichOneof("record_type") == "history"
            ]
        time.sleep(0.05)  # W&B's own process is still writing when `finish` is back
    raise AssertionError(f"{path} has no end")


def _chunks(content: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, which W&B uses after 7 bytes of its own: blocks of 32 KiB, each piece of a
    record behind a checksum (4 bytes), its length (2) and its kind (1: whole, 2: first, 3: middle, 4: last)."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""
