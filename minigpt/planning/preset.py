"""The training step of a configuration, without its data."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from minigpt.data.config import TokenizerConfig
from minigpt.data.tokenizer import Tokenizer
from minigpt.model.config import ModelConfig
from minigpt.model.count import num_parameters, padded_vocab_size
from minigpt.planning.memory import Workload, largest_micro_batch
from minigpt.planning.plan import count_text

BYTES_VOCAB_SIZE = 257
"""256 byte values and the end of text."""


def preset_workload(
    model: ModelConfig,
    tokenizer: TokenizerConfig,
    *,
    tokens_per_step: int,
    micro_batch_size: int | None,
    precision: str,
    activation_checkpointing: bool,
    optimizer: Literal["adamw", "muon"],
    device_type: str,
    available_bytes: int | None,
) -> tuple[Workload, str]:
    """The step that one process would compute, and its choices in words.

    `micro_batch_size` None is "auto": what a run here would choose.

    Raises:
        DataError: the tokenizer's file cannot be read.
    """
    vocab_size = padded_vocab_size(planned_vocab_size(tokenizer))
    work = Workload(
        model, vocab_size, 1, precision, activation_checkpointing, optimizer, device_type=device_type
    )
    sequences = tokens_per_step // model.context_length
    if micro_batch_size is None:
        size = largest_micro_batch(work, sequences_per_rank_step=sequences, available_bytes=available_bytes)
        how = "auto"
    else:
        size, how = micro_batch_size, "as set"
    work = replace(work, micro_batch_size=size)
    return work, (
        f"{count_text(num_parameters(model, vocab_size))} parameters, micro_batch_size {size} ({how}) "
        f"x {model.context_length} tokens, "
        f"{'fp32' if precision == 'off' else precision}, {optimizer}"
    )


def planned_vocab_size(tokenizer: TokenizerConfig) -> int:
    """The vocabulary that the tokenizer will have: known before any text is read."""
    if tokenizer.kind == "file":
        assert tokenizer.path is not None
        return Tokenizer.load(Path(tokenizer.path)).vocab_size
    return BYTES_VOCAB_SIZE if tokenizer.kind == "bytes" else tokenizer.vocab_size
