"""Finding and reading checkpoints: safe (weights only), checked, and with the older one when the newest is damaged."""

import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.files import FORMAT, checkpoints_by_step
from minigpt.checkpoint.health import healthy_newest_first
from minigpt.errors import CheckpointError


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's content, where it came from, and which newer ones were damaged (one line each)."""

    path: Path
    state: dict[str, Any]
    damaged: list[str] = field(default_factory=list)


def find_checkpoint(place: Path) -> Path:
    """The checkpoint file at `place`, or the newest one of the run folder `place`.

    Raises:
        CheckpointError: there is none.
    """
    if place.is_dir():
        return list(_candidates(place).values())[-1]
    if not place.is_file():
        raise CheckpointError(
            f"{place} is neither a checkpoint file nor a run folder; runs live in checkpoints/"
        )
    return place


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of one checkpoint file, on the CPU; only plain data and tensors are ever unpickled.

    Raises:
        CheckpointError: the file is damaged or is no checkpoint of MiniGPT.
    """
    try:
        # The archive carries a CRC-32 of every record, and torch.load does not look at it.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(
                f"{path} is damaged (checksum of {broken} does not match); use an older checkpoint"
            )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    # A damaged archive surfaces as many types: BadZipFile, EOFError, UnpicklingError, RuntimeError, KeyError ...
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {_reason(error)}; use an older one"
        ) from error
    if not isinstance(state, dict) or "model_state_dict" not in state or "step" not in state:
        raise CheckpointError(f"{path} is not a MiniGPT checkpoint: it has no model_state_dict and step")
    if state.get("format") not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"{path} has checkpoint format {state.get('format')}, this MiniGPT reads 1 to {FORMAT}; "
            "use the version that wrote it"
        )
    return state


def _reason(error: Exception) -> str:
    """One line; torch's own about unsafe content is a page of advice to load it all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than plain data and tensors"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_newest(run_dir: Path, *, healthy: bool = False) -> Loaded:
    """The newest checkpoint of a run folder that can be read; with `healthy`, of those that are marked so.

    Raises:
        CheckpointError: there is none, or all are damaged.
    """
    damaged: list[str] = []
    paths = list(_candidates(run_dir).values())
    if healthy:
        paths = [health.path for health in healthy_newest_first(run_dir)][::-1]
        if not paths:
            raise CheckpointError(
                f"{run_dir} has no checkpoint that is marked healthy; --resume alone takes the newest good one"
            )
    for path in reversed(paths):
        try:
            return Loaded(path, load_checkpoint(path), damaged)
        except CheckpointError as error:
            damaged.append(str(error))
    raise CheckpointError(f"no checkpoint in {run_dir} can be read; the newest: {damaged[0]}")


def _candidates(run_dir: Path) -> dict[int, Path]:
    paths = checkpoints_by_step(run_dir)
    if not paths:
        raise CheckpointError(f"{run_dir} has no checkpoint_step_N.pt; start without --resume")
    return paths
