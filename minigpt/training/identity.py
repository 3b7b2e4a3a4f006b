"""Which run this is: what was asked for, and what else its results depend on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.config.run_config import RunConfig
from minigpt.data.prepare import Prepared
from minigpt.model.count import padded_vocab_size
from minigpt.training.environment import environment


@dataclass(frozen=True)
class Order:
    """What was asked for: the run's name, folder and configuration, and the overrides it was made with."""

    name: str
    run_dir: Path
    config: RunConfig
    overrides: tuple[str, ...] = ()


def identity_of(order: Order, prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """What a checkpoint says of the run besides its state, as plain data."""
    return {
        "name": order.name,
        "config": order.config.model_dump(mode="json"),
        "overrides": list(order.overrides),
        "vocab_size": padded_vocab_size(prepared.manifest.vocab_size),
        "tokenizer_id": prepared.manifest.tokenizer_id,
        "corpus": {
            "fingerprint": prepared.manifest.fingerprint,
            "tokens_sha256": prepared.manifest.tokens_sha256,
            "folder": str(prepared.folder),
        },
        "environment": environment(device),
    }
