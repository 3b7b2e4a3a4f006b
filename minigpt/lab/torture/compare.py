"""What a run's folder says when it is over, and the first difference between two of them."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from tensorboard.backend.event_processing.plugin_event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator as TensorAccumulator,
)
from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.lab.same_run import CLOCK_FIELDS, CLOCK_RULES, CLOCK_TAGS
from minigpt.lab.same_values import first_difference
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME, TENSORBOARD_NAME

ABOUT_FILES = {"corpus", "records", "sinks", "digests", "checksums"}
"""Of a checkpoint: where the cache lies, and what it knows of files in which the clock's fields stand: those are
compared themselves."""
OWN_HISTORY = {"save", "resume"}
"""Events that tell of this very run's interruptions."""
_ALL = {"scalars": 0, "text": 0}
_LEFT_OVER = re.compile(r"\.tmp(-|$)")
_STEP_AND_VALUE = tuple[int, object]


def difference(straight: Path, other: Path, steps: int, *, same_checkpoints: bool) -> str | None:
    """The first difference between the folders of two finished runs of `steps` steps; None: bit-equal.

    `same_checkpoints`: whether both must have kept the same ones.
    """
    checkpoints = [checkpoints_by_step(folder) for folder in (straight, other)]
    if any(steps not in found for found in checkpoints):
        return f"checkpoint_step_{steps}.pt is missing: {[[*found] for found in checkpoints]}"
    if same_checkpoints and checkpoints[0].keys() != checkpoints[1].keys():
        return f"checkpoints kept: {[*checkpoints[0]]}, {[*checkpoints[1]]}"
    for step in checkpoints[0].keys() & checkpoints[1].keys():
        first, second = (_state(paths[step]) for paths in checkpoints)
        if (found := first_difference(first, second, f"checkpoint_step_{step}.pt")) is not None:
            return found
    for name, read in (("metrics.jsonl", _metrics), ("events.jsonl", _events), ("TensorBoard", curves)):
        if (found := first_difference(read(straight), read(other), name)) is not None:
            return found
    return leftovers(other) or _gap(straight, steps)


def leftovers(folder: Path) -> str | None:
    """A temporary file below `folder` that nobody is going to remove."""
    left = [path for path in folder.rglob("*") if _LEFT_OVER.search(path.name)]
    return f"left behind: {left[0].relative_to(folder)}" if left else None


def _gap(run_dir: Path, steps: int) -> str | None:
    """What both would have to lack to be equal without being whole."""
    wanted = list(range(1, steps + 1))
    for name, found in (
        ("metrics.jsonl", [record["step"] for record in _metrics(run_dir)]),
        ("TensorBoard's train/loss", [step for step, _ in curves(run_dir)["./train/loss"]]),
    ):
        if found != wanted:
            return f"{name} has the steps {found}, not each of 1 to {steps} once"
    return None


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for name in CLOCK_RULES:
        state["monitor"]["detectors"].pop(name, None)
    return {key: value for key, value in state.items() if key not in ABOUT_FILES}


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _metrics(run_dir: Path) -> list[dict[str, Any]]:
    records = _records(run_dir / METRICS_NAME)
    return [{key: value for key, value in record.items() if key not in CLOCK_FIELDS} for record in records]


def _events(run_dir: Path) -> list[dict[str, Any]]:
    """Those that still stand."""
    standing = (
        {key: value for key, value in record.items() if key != "time"}
        for record in _records(run_dir / EVENTS_NAME)
        if not record.get("superseded") and record["kind"] not in OWN_HISTORY
    )
    return [json.loads(_without_place(json.dumps(record), run_dir)) for record in standing]


def curves(run_dir: Path) -> dict[str, list[_STEP_AND_VALUE]]:
    """Every series but the clock's as TensorBoard loads it, by its run's folder and its tag."""
    root = run_dir / TENSORBOARD_NAME
    folders = sorted({path.parent for path in root.rglob("*tfevents*")})
    return {
        f"{folder.relative_to(root)}/{tag}": series
        for folder in folders
        for tag, series in sorted(_series(folder, run_dir).items())
        if series  # a tag of discarded steps alone is no curve
    }


def _series(folder: Path, run_dir: Path) -> dict[str, list[_STEP_AND_VALUE]]:
    # It warns of each purge: every resume is one.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    found: dict[str, list[_STEP_AND_VALUE]] = {}
    numbers = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    numbers.Reload()
    for tag in numbers.Tags()["scalars"]:
        found[tag] = [(each.step, each.value) for each in numbers.Scalars(tag)]
    # What TensorBoard's own server reads; it has the texts, of which the other discards none.
    everything = TensorAccumulator(str(folder), size_guidance={"tensors": 0}, tensor_size_guidance=_ALL)
    everything.Reload()
    for tag in everything.Tags()["tensors"]:
        if tag.split("/")[0] not in OWN_HISTORY:
            values = [(each.step, _value(each.tensor_proto, run_dir)) for each in everything.Tensors(tag)]
            found[f"{tag} (server)"] = values
    return {tag: series for tag, series in found.items() if tag.split(" ")[0] not in CLOCK_TAGS}


def _value(tensor: object, run_dir: Path) -> object:
    value = make_ndarray(tensor).tolist()
    return value if isinstance(value, float) else _without_place(str(value), run_dir)


def _without_place(text: str, run_dir: Path) -> str:
    # Set-aside folders are named after the time.
    return re.sub(r"(after_step_\d+_until)_[\d_-]+", r"\1", text.replace(str(run_dir), "RUN"))
