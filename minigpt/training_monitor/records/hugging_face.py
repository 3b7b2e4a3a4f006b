"""A Hugging Face Trainer's trainer_state.json: its log_history, one entry every logging_steps."""

import json
import re
from collections.abc import Iterator
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from minigpt.training_monitor.records.names import number, whole
from minigpt.training_monitor.records.record import (
    Entry,
    Evaluation,
    Note,
    Options,
    Source,
    Tally,
    UnreadableRecordError,
)

STATE = "trainer_state.json"
_MOST_BYTES = 512 << 20
_HISTORY = re.compile(r'"log_history"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")


def find(path: Path) -> Path | None:
    """The state itself; in a folder its own, or that of the newest checkpoint-N."""
    if path.is_file():
        return path if path.suffix == ".json" and _HISTORY.search(_text(path)) else None
    if (path / STATE).is_file():
        return path / STATE
    states = [state for state in path.glob(f"checkpoint-*/{STATE}") if _checkpoint_step(state) >= 0]
    return max(states, key=_checkpoint_step, default=None)


def _checkpoint_step(state: Path) -> int:
    number_text = state.parent.name.rpartition("-")[2]
    return int(number_text) if number_text.isdigit() else -1


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise UnreadableRecordError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, so it is no {STATE}")
    return path.read_text(encoding="utf-8", errors="replace")


def read(path: Path, options: Options) -> Source:
    """The logged steps, with the evaluations apart."""
    if options.columns:
        raise UnreadableRecordError(f"--columns is for tables; {path} has Hugging Face's own names")
    tally = Tally()
    logging_steps, evaluations, has_norm = None, [], False
    text = _text(path)
    if not _HISTORY.search(text):
        raise UnreadableRecordError(
            f"{path}: no log_history in it; give the trainer_state.json of a checkpoint"
        )
    for record in _history(text, tally):
        step, loss = whole(record.get("step")), number(record.get("eval_loss"))
        if step is not None and loss is not None and isfinite(loss):
            evaluations.append(Evaluation(step, loss))
        has_norm = has_norm or number(record.get("grad_norm")) is not None
    tail = re.search(r'"logging_steps"\s*:\s*([\d.]{1,20})', text)
    logging_steps = tail[1] if tail else "?"
    notes = [Note("hf_filter"), Note("hf_mean", {"logging_steps": logging_steps})]
    if not has_norm:
        notes.append(Note("hf_no_norm"))
    return Source(
        "Hugging Face Trainer state", path, partial(_entries, path), tuple(notes), tuple(evaluations)
    )


def _entries(path: Path, tally: Tally) -> Iterator[Entry]:
    for record in _history(_text(path), tally):
        # The last entry's train_loss is the mean over the whole training, no step's loss.
        if "loss" not in record and "grad_norm" not in record:
            continue
        step = whole(record.get("step"))
        if step is None:
            tally.bad(0)
            continue
        values = {
            "loss": "loss",
            "grad_norm": "grad_norm",
            "lr": "learning_rate",
            "tokens_seen": "num_input_tokens_seen",
        }
        entry: Entry = {
            field: found for field, key in values.items() if (found := number(record.get(key))) is not None
        }
        epoch = number(record.get("epoch"))
        if epoch is not None and isfinite(epoch):
            entry["epoch"] = int(epoch)
        yield entry | {"step": step}


def _history(text: str, tally: Tally) -> Iterator[dict[str, Any]]:
    """The entries of log_history one by one, as far as the file is whole. NaN and Infinity stand bare in it,
    which is not JSON but what Python writes."""
    start = _HISTORY.search(text)
    if start is None:
        return
    decoder, at = json.JSONDecoder(), start.end()
    while True:
        between = _BETWEEN.match(text, at)
        at = between.end() if between else at
        if at >= len(text) or text[at] == "]":
            return
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # cut off in the middle
            tally.bad(text.count("\n", 0, at) + 1)
            return
        if isinstance(record, dict):
            yield record
