"""Checkpoints and crash bundles: their bytes, and whether they are this run's. No tensor is read into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from minigpt.checkpoint.content import glance_at_checkpoint
from minigpt.checkpoint.damage import DamagedError
from minigpt.checkpoint.digest import glance_at_sealed, is_sealed
from minigpt.config.run_config import RunConfig
from minigpt.errors import CheckpointError
from minigpt.model.gpt import GPT
from minigpt.model.saved_weights import check_depth
from minigpt.training.bundle import FORMAT as BUNDLE_FORMAT
from minigpt.training.bundle import KIND, bundle_path
from minigpt.training.folder import CONFIG_NAME, CRASH_PREFIX, TOKENIZER_NAME
from minigpt.training.state import check_shapes
from minigpt.training.verify.report import Checked

NO_DIGEST = "each record's CRC-32 is right (no sha256: an older version or another program wrote it)"
WAY_OUT = "bring it back from a copy, or delete it"


@dataclass(frozen=True)
class Vouched:
    """What a good checkpoint says of the rest of its folder."""

    path: Path
    step: int
    records: dict[str, tuple[int, str]]
    """File name -> its size when the checkpoint was taken, and the SHA-256 of it."""
    corpus_folder: Path | None
    config: RunConfig | None
    """What the run was then; None where another version wrote it."""
    misfits: dict[str, str]
    """config.yaml or tokenizer.json -> how it does not fit to this checkpoint."""


def check_checkpoint(
    path: Path, config: RunConfig | None, tokenizer_id: str | None
) -> tuple[Checked, Vouched | None]:
    """What is wrong with a checkpoint, or what it vouches for; `config` and tokenizer: those beside it, if known."""
    try:
        state = glance_at_checkpoint(path, again=True)
        if not all(isinstance(tensor, Tensor) for tensor in state["model_state_dict"].values()):
            raise DamagedError(path, "its model_state_dict does not hold tensors alone")
        seal = "sha256 is right" if is_sealed(path) else NO_DIGEST
        vouched = Vouched(
            path,
            state["step"],
            _records(state),
            _corpus_folder(state),
            _config(state),
            _misfits(state, config, tokenizer_id),
        )
        text = f"step {state['step']:,}, {path.stat().st_size:,} bytes, {seal}"
    # OSError: a run that trains meanwhile has let go of it.
    except (CheckpointError, OSError) as error:
        return Checked(path.name, "damaged", f"{_what(path, error)}; {WAY_OUT}"), None
    findings = state.get("open_findings")
    if isinstance(findings, dict) and not state.get("healthy", True):
        text += f"; taken in trouble: {', '.join(map(str, findings))}"
    return Checked(path.name, "good", text), vouched


def check_bundle(path: Path) -> Checked:
    """What is wrong with a crash bundle, if anything."""
    try:
        content = glance_at_sealed(path, again=True)
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise DamagedError(path, "it is not a crash bundle")
        if content.get("format") != BUNDLE_FORMAT:
            raise CheckpointError(
                f"it has bundle format {content.get('format')}, this MiniGPT reads {BUNDLE_FORMAT}"
            )
        named = path.stem.removeprefix(CRASH_PREFIX)
        if named.isdecimal() and path.name != bundle_path(path.parent, int(content["step"])).name:
            raise DamagedError(path, f"it holds step {content['step']}, not {named}")
        seal = "sha256 is right" if is_sealed(path) else NO_DIGEST
        return Checked(path.name, "good", f"crash bundle, {path.stat().st_size:,} bytes, {seal}")
    except (CheckpointError, OSError, KeyError, TypeError, ValueError) as error:
        return Checked(path.name, "damaged", f"{_what(path, error)}; {WAY_OUT}")


def _misfits(state: dict[str, Any], config: RunConfig | None, tokenizer_id: str | None) -> dict[str, str]:
    misfits, saved = {}, state["model_state_dict"]
    embedding = saved.get("embedding.weight")
    if config is not None and embedding is not None and embedding.dim() == 2:
        try:
            check_depth(config.model, saved)
            with torch.device("meta"):
                own = GPT(config.model, embedding.shape[0])
            check_shapes(own.state_dict(), saved)
        # torch's, over sizes beyond 64 bits.
        except (CheckpointError, RuntimeError, TypeError, OverflowError) as error:
            misfits[CONFIG_NAME] = str(error).partition(";")[0].partition("\n")[0]
    known = state.get("tokenizer_id")
    if tokenizer_id is not None and known is not None and known != tokenizer_id:
        misfits[TOKENIZER_NAME] = "its weights were trained with another tokenizer"
    return misfits


def _config(state: dict[str, Any]) -> RunConfig | None:
    try:
        return RunConfig.model_validate(state.get("config"))
    except ValidationError:
        return None


def _records(state: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {name: (kept["bytes"], kept["sha256"]) for name, kept in state.get("records", {}).items()}


def _corpus_folder(state: dict[str, Any]) -> Path | None:
    corpus = state.get("corpus")
    folder = corpus.get("folder") if isinstance(corpus, dict) else None
    return Path(folder) if isinstance(folder, str) else None


def _what(path: Path, error: Exception) -> str:
    return error.what if isinstance(error, DamagedError) else str(error).removeprefix(f"{path} ")
