"""TensorBoard event files: ours, Hugging Face's, Lightning's, and any with usual tags."""

import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.training_monitor.records.names import found_columns
from minigpt.training_monitor.records.record import Entry, Note, Options, Source, Tally, UnreadableRecordError

_PATTERN = "*tfevents*"
PEEK_EVENTS = 5000
_LAYERS = "train_layers/grad_norm_"
"""Our tags of the layer groups' norms."""


def find(path: Path) -> Path | None:
    """The event file, or the folder that has such files: itself, or the only or newest one below it."""
    if path.is_file():
        return path if "tfevents" in path.name else None
    if any(path.glob(_PATTERN)):
        return path
    folders = {file.parent for file in path.glob(f"**/{_PATTERN}")}
    return max(folders, key=_changed_at, default=None)


def _changed_at(folder: Path) -> float:
    return max(file.stat().st_mtime for file in folder.glob(_PATTERN))


def read(path: Path, options: Options) -> Source:
    """The scalars of the event files of one folder, in the order of their names."""
    files = [file for file in sorted(path.glob(_PATTERN)) if file.is_file()] if path.is_dir() else [path]
    tags: set[str] = set()
    for index, (_, values) in enumerate(_events(files, Tally())):
        tags |= values.keys()
        if index >= PEEK_EVENTS:
            break
    if not tags:
        raise UnreadableRecordError(
            f"{path}: no scalar in its event files; give the folder of a run that has begun"
        )
    columns = found_columns(sorted(tags), options.columns, str(path))
    columns.pop("step", None)
    notes = (Note("columns", {"columns": ", ".join(f"{field}={name}" for field, name in columns.items())}),)
    return Source("TensorBoard events", path, partial(_entries, files, columns), notes)


def _entries(files: list[Path], columns: Mapping[str, str], tally: Tally) -> Iterator[Entry]:
    wanted = {tag: field for field, tag in columns.items()}
    for step, values in _events(files, tally):
        entry: Entry = {wanted[tag]: value for tag, value in values.items() if tag in wanted}
        groups = {
            tag.removeprefix(_LAYERS): value for tag, value in values.items() if tag.startswith(_LAYERS)
        }
        if groups:
            entry["group_norms"] = groups
        skipped = values.get("train/update_skipped")
        if skipped is not None:
            entry["update_skipped"] = bool(skipped)
            entry["scaler_overflow"] = bool(skipped) and "scaler_scale" in entry
        if entry:
            yield entry | {"step": step}


def _events(files: list[Path], tally: Tally) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and scalars of every event."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    for file in files:
        for number, record in enumerate(_records(file, tally), start=1):
            try:
                event = Event.FromString(record)
            except DecodeError:
                tally.bad(number)
                continue
            values = {
                value.tag: found for value in event.summary.value if (found := _scalar(value)) is not None
            }
            if values:
                yield event.step, values


def _records(path: Path, tally: Tally) -> Iterator[bytes]:
    """The records of a TFRecord file: 8 bytes of length, 4 of checksum, the content, 4 of checksum. A kill may have
    cut the last one; what follows a length that cannot be is lost."""
    size = path.stat().st_size
    with path.open("rb") as file:
        number = 0
        while head := file.read(12):
            number += 1
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else size
            if file.tell() + length + 4 > size:
                tally.bad(number)
                return
            yield file.read(length)
            file.read(4)


def _scalar(value: Any) -> float | None:
    """The number of a summary value, old (simple_value) or new (a tensor of one element)."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor"):
        return None
    tensor = value.tensor
    if len(tensor.float_val) == 1:
        return float(tensor.float_val[0])
    if tensor.dtype == 1 and len(tensor.tensor_content) == 4:  # DT_FLOAT, packed
        return float(struct.unpack("<f", tensor.tensor_content)[0])
    return None
