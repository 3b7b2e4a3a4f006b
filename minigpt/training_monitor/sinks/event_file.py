"""A TensorBoard event file of our own making: no thread, names in the order of their making, nothing half written."""

import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import text as text_summary

from minigpt.training_monitor.sinks.append_file import AppendFile
from minigpt.training_monitor.sinks.checksum import masked_crc32c

_PREFIX = "events.out.tfevents."
_LATEST_STAMP = 9_000_000_000


class EventFile:
    """Appends events to a new file in `folder`; what older files there show from `purge_step` on is hidden.

    TensorBoard reads a folder's files in the order of their names, which begin with a time in seconds. Whatever the
    clock says, the name chosen here comes after those that are there. torch's SummaryWriter takes the clock's word,
    writes in a thread that dies with the first OSError, and flushes by the clock.

    What a disk refuses is kept and written later, as AppendFile does; only `flush` raises OSError.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        self._file = AppendFile(lambda: _next_path(folder))
        # A clock set back or forward while the run goes on leaves no kink in TensorBoard's time axis.
        self._began_at = time.time() - time.monotonic()
        self._head = [Event(file_version="brain.Event:2")]
        if purge_step is not None:
            started = SessionLog(status=SessionLog.START)
            self._head.append(Event(step=purge_step, session_log=started))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of `step` by their tags, in one event."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._append(Event(step=step, summary=summary))

    def add_text(self, tag: str, text: str, step: int) -> None:
        said = text.encode("utf-8", "backslashreplace").decode()
        summary = text_summary(tag, said)  # type: ignore[no-untyped-call]
        self._append(Event(step=step, summary=summary))

    def flush(self) -> None:
        """Everything so far is on disk when this returns; an OSError else."""
        if not self._head:
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def trouble(self) -> OSError | None:
        """Why the disk refuses at present; None: it does not."""
        return self._file.trouble

    def take_lost(self) -> int:
        return self._file.take_lost()

    def _append(self, event: Event) -> None:
        events, self._head = [*self._head, event], []
        records = []
        for each in events:
            each.wall_time = self._began_at + time.monotonic()
            records.append(_framed(each.SerializeToString()))
        self._file.append(b"".join(records))


def _framed(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, the content, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data)))
    )


def _next_path(folder: Path) -> Path:
    """A name that sorts behind every event file in the folder."""
    folder.mkdir(exist_ok=True)
    stamps = [
        int(stamp)
        for path in folder.iterdir()
        if path.name.startswith(_PREFIX)
        and len(stamp := path.name.removeprefix(_PREFIX).split(".")[0]) == 10
        and stamp.isdigit()
    ]
    # Ten digits, as all have them: else the order of the names is not that of the numbers.
    newest = max([min(max(int(time.time()), 0), _LATEST_STAMP), *(older + 1 for older in stamps)])
    return folder / f"{_PREFIX}{newest:010d}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
