"""A training.log: `Step 10: Loss: 8.2345 grad_norm=0.0001 lr=...`, and logs of other loops in that manner."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from minigpt.training_monitor.records.names import number
from minigpt.training_monitor.records.record import Entry, Note, Options, Source, Tally, UnreadableRecordError

_NUMBER = r"([-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?))"
_GAP = r"['\"]?\s*[:=|]?\s*(?:tensor\()?"
_STEP = re.compile(
    r"(?<![\w/])(?:global_step|step|iteration|iter)['\"]?\s*[:=]?\s*\[?\s*(\d{1,18})(?!\d)", re.IGNORECASE
)
_VALUES = {
    "loss": re.compile(rf"(?<![\w/-])(?:train[_ /]|lm )?loss{_GAP}{_NUMBER}", re.IGNORECASE),
    "grad_norm": re.compile(
        rf"(?<![\w/-])(?:train/)?(?:grad(?:ient)?[_ -]?norm|gnorm|norm){_GAP}{_NUMBER}", re.IGNORECASE
    ),
    "lr": re.compile(rf"(?<![\w/-])(?:train/)?(?:lr|learning[_ ]rate){_GAP}{_NUMBER}", re.IGNORECASE),
    "tokens_per_second": re.compile(
        rf"(?<![\w/-])(?:tokens/s|tok/s(?:ec)?|tokens_per_second){_GAP}{_NUMBER}"
    ),
    "tokens_seen": re.compile(rf"(?<!\w)tokens_seen{_GAP}{_NUMBER}"),
    "scaler_scale": re.compile(rf"(?<![\w/-])(?:scale|loss scale){_GAP}{_NUMBER}"),
}
_EVALUATION = re.compile(r"val(?:idation)?[_ /]?loss|eval[_ /]loss", re.IGNORECASE)
_NEW_RUN = "checkpoint_step_0.pt"
"""MiniGPT saves before its first step: only a new run does."""
PEEK_LINES = 5000
_OURS = re.compile(rb"Step \d+: Loss: \S+ grad_norm=")
_LONGEST_LINE = 1 << 16


def find(path: Path) -> Path | None:
    """The log: a text file with lines that have a step and a loss or gradient norm; in a folder, training.log."""
    if path.is_dir():
        inside = [path / "training.log", path / "logs" / "training.log"]
        return next((file for file in inside if file.is_file() and find(file)), None)
    return path if path.is_file() and _looks_like_one(path) else None


def _looks_like_one(path: Path) -> bool:
    with path.open("rb") as file:
        if b"\0" in file.read(4096):
            return False
    return next(_entries(path, Tally(), at_most=PEEK_LINES), None) is not None


def read(path: Path, options: Options) -> Source:
    """The steps of a log."""
    if options.columns:
        raise UnreadableRecordError(
            f"--columns is for tables (CSV, JSON lines, TensorBoard); {path} is a log, whose lines must look like "
            "`Step 10: Loss: 8.2345 grad_norm=0.0001`"
        )
    with path.open("rb") as file:
        ours = any(_OURS.match(line) for line in islice(file, PEEK_LINES))
    return Source("training log", path, partial(_entries, path), notes=(Note("rounded"),), is_minigpt=ours)


def _entries(path: Path, tally: Tally, at_most: int | None = None) -> Iterator[Entry]:
    new_run = False
    with path.open("rb") as file:
        for line_number, raw in enumerate(file, start=1):
            if at_most is not None and line_number > at_most:
                return
            line = raw[:_LONGEST_LINE].decode("utf-8", errors="replace")
            if line.startswith(_NEW_RUN):
                new_run = True
                continue
            entry = _entry(line)
            if entry is None:
                if line.startswith("Step ") and "Loss:" in line:
                    tally.bad(line_number)
                continue
            if new_run:
                entry["new_run"] = True
                new_run = False
            yield entry


def _entry(line: str) -> Entry | None:
    """What a line says of its step; None when it is no training step's."""
    step = _STEP.search(line)
    if step is None or _EVALUATION.search(line):
        return None
    entry: Entry = {"step": int(step[1])}
    rest = line[step.end() :]
    for field, pattern in _VALUES.items():
        match = pattern.search(rest) or (pattern.search(line) if field == "loss" else None)
        value = number(match[1].replace(",", "")) if match else None
        if value is not None:
            entry[field] = value
    if "update=skipped" in line:
        entry["update_skipped"] = True
        entry["scaler_overflow"] = "scaler_scale" in entry
    return entry if "loss" in entry or "grad_norm" in entry else None
