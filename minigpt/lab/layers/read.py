"""Weights from whatever file holds some: a checkpoint or run folder of MiniGPT, a .pt or .safetensors of others."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.checkpoint.archive import check_archive
from minigpt.checkpoint.damage import DamagedError, opened
from minigpt.checkpoint.dry_run import UNSAFE, UnfitError
from minigpt.checkpoint.files import checkpoint_step, checkpoints_by_step
from minigpt.checkpoint.load import is_run_folder, load_given, load_newest
from minigpt.errors import CheckpointError, MiniGPTError

_HOLDERS = ("model_state_dict", "state_dict", "model", "module", "weights")
"""Under which of its keys a checkpoint of somebody's keeps the weights."""


@dataclass(frozen=True)
class Weights:
    """Named tensors and where they come from."""

    path: Path
    """The file."""
    tensors: Mapping[str, Tensor]
    """Floating-point ones, on the CPU."""
    step: int | None
    """Updates done; None where it is no checkpoint of MiniGPT."""
    notes: list[str] = field(default_factory=list)
    """What was passed over on the way, a line each."""


def read_weights(place: Path) -> Weights:
    """The weights of a file, or of a run folder's newest good checkpoint. Nothing but plain data is ever unpickled.

    Raises:
        MiniGPTError: there are none, or they cannot be read safely.
    """
    if is_run_folder(place):
        if not checkpoints_by_step(place):
            raise CheckpointError(
                f"{place} has no checkpoint_step_N.pt; give a run folder, a checkpoint, or a .pt or .safetensors file"
            )
        newest = load_newest(place)
        passed = [f"passed over a damaged checkpoint: {line}" for line in newest.damaged]
        return Weights(
            newest.path,
            _floating(newest.state["model_state_dict"], newest.path),
            newest.state["step"],
            passed,
        )
    if not os.path.lexists(place):
        raise CheckpointError(f"{place} is neither a file nor a run folder; runs live in checkpoints/")
    if checkpoint_step(place) is not None:
        given = load_given(place)
        return Weights(place, _floating(given.state["model_state_dict"], place), given.state["step"])
    if place.suffix == ".safetensors":
        return Weights(place, _floating(_safetensors(place), place), None)
    content = _torch_file(place)
    step = content.get("step") if "format" in content and "config" in content else None
    return Weights(place, _floating(_state_dict(content, place), place), step if type(step) is int else None)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with opened(path):
        pass
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedError(path, f"it is no safetensors file: {_first_line(error)}") from error


def _torch_file(path: Path) -> dict[Any, Any]:
    with opened(path) as file:
        try:
            check_archive(path)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except UnfitError as error:
            if UNSAFE in str(error):
                raise CheckpointError(
                    f"{path} is not opened: {error}; torch.save a state_dict() alone"
                ) from error
            raise CheckpointError(f"{path} is damaged, or no file of torch.save: {error}") from error
        except Exception as error:  # what a damaged archive raises has no common type
            if isinstance(error, MemoryError):
                raise MiniGPTError(f"{path} does not fit into the memory of this machine") from error
            raise DamagedError(path, f"it cannot be read: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no dictionary of names and weights")
    return content


def _state_dict(content: Mapping[Any, Any], path: Path) -> Mapping[Any, Any]:
    """The part of the content that names tensors: a known key's, or all of it."""
    for key in _HOLDERS:
        inner = content.get(key)
        if isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values()):
            return inner
    return content


def _floating(found: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    tensors = {
        str(name): value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    if not tensors:
        raise CheckpointError(f"{path} holds no weights: a dictionary of names and tensors is wanted")
    return tensors


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
