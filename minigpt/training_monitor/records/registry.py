"""All kinds of records: a new one is its own file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minigpt.training_monitor.records import (
    csv_table,
    hugging_face,
    json_lines,
    minigpt_run,
    tensorboard_events,
    training_log,
)
from minigpt.training_monitor.records.record import Options, Source, UnreadableRecordError
from minigpt.training_monitor.records.timeline import Timeline, look_through


class Reader(NamedTuple):
    """Finds its kind of record at a path (None: not there), and reads it."""

    find: Callable[[Path], Path | None]
    read: Callable[[Path, Options], Source]
    title: str


READERS: tuple[Reader, ...] = (
    Reader(minigpt_run.find, minigpt_run.read, "a MiniGPT run's folder or metrics.jsonl"),
    Reader(hugging_face.find, hugging_face.read, "a Hugging Face run's folder or trainer_state.json"),
    Reader(csv_table.find, csv_table.read, "a CSV, such as Lightning's metrics.csv"),
    Reader(tensorboard_events.find, tensorboard_events.read, "a TensorBoard folder or event file"),
    Reader(json_lines.find, json_lines.read, "JSON lines"),
    Reader(
        training_log.find,
        training_log.read,
        "a training.log with lines like `Step 10: Loss: 8.2345 grad_norm=0.1`",
    ),
)
"""In the order in which they are asked: the one that knows most of a run first."""


def open_record(path: Path, options: Options | None = None) -> Timeline:
    """The run recorded at `path`.

    Raises:
        UnreadableRecordError: nothing there can be judged; one line that says what would do.
    """
    options = options or Options()
    if not path.exists():
        raise UnreadableRecordError(
            f"{path}: there is no such file or folder (from {Path.cwd()}); give {_kinds()}"
        )
    if not path.is_file() and not path.is_dir():
        raise UnreadableRecordError(f"{path} is neither a file nor a folder; give {_kinds()}")
    if path.is_file() and not path.stat().st_size:
        raise UnreadableRecordError(f"{path} is empty; give a record of a run that has begun to train")
    runs = (
        sorted(path.glob("*/metrics.jsonl"))
        if path.is_dir() and not (path / "metrics.jsonl").exists()
        else []
    )
    if len(runs) > 1:
        names = ", ".join(run.parent.name for run in runs[:8]) + (", ..." if len(runs) > 8 else "")
        raise UnreadableRecordError(
            f"{path} holds {len(runs)} runs ({names}); give one, such as {runs[-1].parent}"
        )
    if runs:
        path = runs[0].parent
    for reader in READERS:
        found = reader.find(path)
        if found is not None:
            return look_through(reader.read(found, options), options)
    raise UnreadableRecordError(_unknown(path))


def _unknown(path: Path) -> str:
    if path.is_file():
        return f"{path}: no training record that can be read; give {_kinds()}"
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    held = f"holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "is empty"
    return f"{path} {held}: no training record among it; give {_kinds()}"


def _kinds() -> str:
    *others, last = (reader.title for reader in READERS)
    return f"{', '.join(others)} or {last}"
