"""A CSV: any table with a step and a loss or gradient norm; Lightning's metrics.csv with its empty cells."""

import csv
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.training_monitor.records.names import found_columns, number, whole
from minigpt.training_monitor.records.record import Entry, Note, Options, Source, Tally, UnreadableRecordError

_LONGEST_HEADER = 1 << 17
"""As long as a cell that Python's csv reads."""
_DELIMITERS = (",", "\t", ";")


def find(path: Path) -> Path | None:
    """The table; in a folder Lightning's metrics.csv, of the newest version_N below it too."""
    if path.is_file():
        return path if path.suffix.lower() in (".csv", ".tsv") else None
    if (path / "metrics.csv").is_file():
        return path / "metrics.csv"
    versions = [*path.glob("version_*/metrics.csv"), *path.glob("lightning_logs/version_*/metrics.csv")]
    return max(versions, key=_version, default=None)


def _version(metrics: Path) -> int:
    number_text = metrics.parent.name.rpartition("_")[2]
    return int(number_text) if number_text.isdigit() else -1


def read(path: Path, options: Options) -> Source:
    """The rows of a table, under the usual names or those of `options.columns`."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = file.readline(_LONGEST_HEADER)
    if not header.strip():
        raise UnreadableRecordError(f"{path} is empty; give a CSV with a header line and a row a step")
    if len(header) == _LONGEST_HEADER:
        raise UnreadableRecordError(
            f"{path}: its header is longer than {_LONGEST_HEADER:,} characters; give a CSV with a row a step"
        )
    if not header.rstrip("\r\n").replace("\t", "").isprintable() or "\ufffd" in header:
        raise UnreadableRecordError(
            f"{path} is not a text file; give a CSV with a header line and a row a step"
        )
    delimiter = max(_DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter), [])
    columns = found_columns(names, options.columns, str(path))
    notes: tuple[Note, ...] = (
        Note("columns", {"columns": ", ".join(f"{field}={name}" for field, name in columns.items())}),
    )
    if "step" not in columns:
        notes += (Note("no_step_column"),)
    return Source("CSV", path, partial(_entries, path, delimiter, columns), notes)


def _entries(path: Path, delimiter: str, columns: Mapping[str, str], tally: Tally) -> Iterator[Entry]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader((line.replace("\0", "") for line in file), delimiter=delimiter)
        names = next(rows)
        places = {field: names.index(name) for field, name in columns.items()}
        at_step = places.pop("step", None)
        for index, row in enumerate(_whole_rows(rows, tally), start=1):
            if not any(row):
                continue
            if len(row) < len(names):
                tally.bad(rows.line_num)
                continue
            entry: Entry = {
                field: found for field, place in places.items() if (found := number(row[place])) is not None
            }
            step = index if at_step is None else whole(row[at_step])
            if step is None:
                if row[at_step or 0].strip() or "loss" in entry:
                    tally.bad(rows.line_num)
                continue
            yield entry | {"step": step}


def _whole_rows(rows: Any, tally: Tally) -> Iterator[list[str]]:
    """The rows that the csv module can read: it refuses cells of megabytes."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:
            tally.bad(rows.line_num)
