"""The training step of a configuration, without its data."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from minigpt.data.config import TokenizerConfig
from minigpt.data.tokenizer import Tokenizer
from minigpt.model.config import ModelConfig
from minigpt.model.count import padded_vocab_size
from minigpt.planning.micro_batch import largest_micro_batch
from minigpt.planning.workload import Recompute, Workload

BYTES_VOCAB_SIZE = 257
"""256 byte values and the end of text."""


def preset_workload(
    model: ModelConfig,
    tokenizer: TokenizerConfig,
    *,
    tokens_per_step: int,
    micro_batch_size: int | None,
    precision: str,
    recompute: Recompute,
    optimizer: Literal["adamw", "muon"],
    device_type: str,
    compiled: bool,
    available_bytes: int | None,
) -> Workload:
    """The step that one process would compute.

    `micro_batch_size` None is "auto": what a run here would choose.

    Raises:
        DataError: the tokenizer's file cannot be read.
    """
    vocab_size = padded_vocab_size(planned_vocab_size(tokenizer))
    work = Workload(
        model,
        vocab_size,
        1,
        precision,
        recompute,
        optimizer,
        device_type=device_type,
        compiled=compiled,
    )
    sequences = tokens_per_step // model.context_length
    size = micro_batch_size or largest_micro_batch(
        work, sequences_per_rank_step=sequences, available_bytes=available_bytes
    )
    return replace(work, micro_batch_size=size, accumulates=size < sequences)


def planned_vocab_size(tokenizer: TokenizerConfig) -> int:
    """The vocabulary that the tokenizer will have: known before any text is read."""
    if tokenizer.kind == "file":
        assert tokenizer.path is not None
        return Tokenizer.load(Path(tokenizer.path)).vocab_size
    return BYTES_VOCAB_SIZE if tokenizer.kind == "bytes" else tokenizer.vocab_size
