"""A trained model from its run folder or checkpoint, ready to use."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from minigpt.checkpoint.files import checkpoint_path, checkpoints_by_step
from minigpt.checkpoint.load import Loaded, is_run_folder, load_given, load_newest
from minigpt.config.run_config import RunConfig
from minigpt.data.tokenizer import Tokenizer
from minigpt.errors import CheckpointError
from minigpt.model.gpt import GPT
from minigpt.model.rotary import rotary_tables
from minigpt.model.saved_weights import check_weights


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with what belongs to it."""

    model: GPT
    """In evaluation mode, on the device asked for."""
    tokenizer: Tokenizer
    tokenizer_path: Path
    config: RunConfig
    step: int
    """Finished updates."""
    path: Path
    """The checkpoint it comes from."""
    damaged: list[str]
    """Newer checkpoints that could not be read, one line each."""


def load_model(place: Path, device: torch.device, *, best: bool = False) -> LoadedModel:
    """The model of a checkpoint file, or of a run folder's newest good (or best) checkpoint.

    Draws nothing from any random generator.

    Raises:
        CheckpointError: there is none, or it cannot be used.
    """
    found = _read(place, best)
    state = found.state
    try:
        config = RunConfig.model_validate(state["config"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{found.path} was not written by this version of MiniGPT: its config cannot be read"
        ) from error
    tokenizer_path = found.path.parent / "tokenizer.json"
    if not tokenizer_path.is_file():
        raise CheckpointError(
            f"{tokenizer_path} is missing; copy it from the run's folder, beside the checkpoint"
        )
    tokenizer = Tokenizer.load(tokenizer_path)
    model = _model_of(state["model_state_dict"], config, found.path, device)
    if tokenizer.vocab_size > model.vocab_size:
        raise CheckpointError(
            f"{tokenizer_path} has {tokenizer.vocab_size} tokens, the model of {found.path.name} knows "
            f"{model.vocab_size}; put the tokenizer.json of its own run there"
        )
    return LoadedModel(model, tokenizer, tokenizer_path, config, state["step"], found.path, found.damaged)


def _read(place: Path, best: bool) -> Loaded:
    if not is_run_folder(place):
        if best:
            raise CheckpointError(f"--best wants a run folder, and {place} is none; leave --best out")
        return load_given(place)
    if not checkpoints_by_step(place):
        raise CheckpointError(
            f"{place} has no checkpoint_step_N.pt yet; give a run folder, such as checkpoints/pretrain_small"
        )
    newest = load_newest(place)
    if not best:
        return newest
    best_step = newest.state.get("position", {}).get("best_step")
    if best_step is None:
        raise CheckpointError(
            f"{place} has no best checkpoint: the run was never evaluated; leave --best out"
        )
    path = checkpoint_path(place, best_step)
    if path == newest.path:
        return newest
    if not os.path.lexists(path):
        raise CheckpointError(
            f"{path}, the best of the run, is gone (checkpoint.keep_best); leave --best out"
        )
    return replace(load_given(path), damaged=newest.damaged)


def check_context(config: RunConfig, path: Path) -> None:
    """No weight tells how long the context is; the rotary tables of a wrong one may be larger than any memory."""
    model = config.model
    floats = model.context_length * model.head_dim * (8 + 2 * model.num_layers * model.resolved_num_kv_heads)
    try:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no Linux
        return
    if 4 * floats > memory_bytes:
        raise CheckpointError(
            f"{path}: a context of model.context_length = {model.context_length} takes "
            f"{4 * floats / 2**30:,.1f} GiB, this machine has {memory_bytes / 2**30:,.1f}; use another checkpoint"
        )


def _model_of(weights: dict[str, Any], config: RunConfig, path: Path, device: torch.device) -> GPT:
    """The model with `weights`, built without values first: nobody would see the random ones."""
    check_weights(config.model, weights, path)
    check_context(config, path)
    try:
        vocab_size = weights["embedding.weight"].shape[0]
        with torch.device("meta"):
            model = GPT(config.model, vocab_size)
        model.to_empty(device=device)
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit its own config's model section") from error
    cos, sin = rotary_tables(config.model.head_dim, config.model.context_length, config.model.rope_theta)
    model.rotary_cos.copy_(cos)
    model.rotary_sin.copy_(sin)
    return model.eval()
