"""Crash bundles: one step's batches, random state and weights in one file, enough to do that step again anywhere."""

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt.checkpoint.digest import read_sealed, write_sealed
from minigpt.data.loader import Batch
from minigpt.errors import CheckpointError
from minigpt.training.folder import CRASH_PREFIX as PREFIX
from minigpt.training.passage import Passage

FORMAT = 1
KIND = "minigpt crash bundle"
MOST_PER_RUN = 2
"""Each is as large as the weights; the first ones tell the most."""
RECORDS_KEPT = 200
_RECORD_BYTES = 8192
"""More than a line of metrics.jsonl takes, to know how much of its end to read."""


@dataclass(frozen=True)
class Bundle:
    """What was at hand when a step went wrong; plain data and tensors only."""

    step: int
    reason: str
    """Name of the finding, or "stop"."""
    micro_batches: list[Batch]
    """Of one rank."""
    passages: list[list[Passage]]
    """A list a micro-batch, an entry a sequence."""
    rng: dict[str, Tensor]
    """Random states (torch, and cuda) when the step began."""
    weights: dict[str, Tensor]
    weights_exact: bool
    """Whether the weights are those that the step began with; else one later update may be in them."""
    signals: dict[str, Any]
    """The step's numbers as they were read: loss, grad_norm, lr, scaler_scale, ..."""
    records: list[dict[str, Any]]
    """The last lines of metrics.jsonl."""
    precision: str
    rank: int
    world_size: int
    compiled: bool
    device: str
    identity: dict[str, Any]
    """Name, config, overrides, vocab_size, corpus, environment: as in a checkpoint."""
    blame: dict[str, Any] = field(default_factory=dict)
    """What the run itself found out: Blame's fields; {} where it did not look."""
    written_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def bundle_path(run_dir: Path, step: int) -> Path:
    """Where the bundle of a step lies."""
    return run_dir / f"{PREFIX}{step}.pt"


def bundles_of(run_dir: Path) -> list[Path]:
    """The bundles of a run folder."""
    return sorted(run_dir.glob(f"{PREFIX}*.pt"))


def write_bundle(run_dir: Path, bundle: Bundle) -> Path:
    """Write it, all or nothing.

    Raises:
        OSError, RuntimeError: the disk refuses.
    """
    path = bundle_path(run_dir, bundle.step)
    content = {name: getattr(bundle, name) for name in bundle.__dataclass_fields__}
    content["micro_batches"] = [vars(batch) for batch in bundle.micro_batches]
    content["passages"] = [[vars(passage) for passage in row] for row in bundle.passages]
    write_sealed(path, {"format": FORMAT, "kind": KIND, **content})
    return path


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file, on the CPU; only plain data and tensors are ever unpickled.

    Raises:
        CheckpointError: there is none, it is damaged, or of another version.
    """
    if path.is_dir():
        held = bundles_of(path)
        hint = f"; it holds {', '.join(each.name for each in held)}" if held else ", and it holds none"
        raise CheckpointError(f"{path} is a folder, and a crash bundle is one file ({PREFIX}N.pt){hint}")
    if not os.path.lexists(path):
        raise CheckpointError(f"{path} is not there; a run writes its crash bundles as {PREFIX}N.pt")
    content = _content(path)
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has bundle format {content.get('format')}, this MiniGPT reads {FORMAT}; "
            "use the version that wrote it"
        )
    del content["format"], content["kind"]
    try:
        batches = [Batch(**batch) for batch in content.pop("micro_batches")]
        passages = [[Passage(**passage) for passage in row] for row in content.pop("passages")]
        return Bundle(micro_batches=batches, passages=passages, **content)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a whole crash bundle: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    content = read_sealed(path)
    if not isinstance(content, dict) or content.get("kind") != KIND:
        kind = (
            "a checkpoint"
            if isinstance(content, dict) and "model_state_dict" in content
            else "something else"
        )
        raise CheckpointError(f"{path} is {kind}, not a crash bundle; a run writes those as {PREFIX}N.pt")
    found: dict[str, Any] = content
    return found


def last_records(metrics_path: Path, count: int = RECORDS_KEPT) -> list[dict[str, Any]]:
    """The last records of metrics.jsonl, reading no more of the file than its end; [] where there is none."""
    try:
        with metrics_path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - count * _RECORD_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    records = []
    for line in lines[-count:]:
        try:
            record = json.loads(line)
        except ValueError:  # cut in two by the place where reading began
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
