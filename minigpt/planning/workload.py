"""What a training step computes on one rank, as far as it decides about memory."""

from dataclasses import dataclass
from typing import Literal

from minigpt.model.config import ModelConfig

Recompute = Literal["off", "selective", "full"]


@dataclass(frozen=True)
class Workload:
    """What a training step computes on one rank."""

    model: ModelConfig
    vocab_size: int
    """The model's, that is padded."""
    micro_batch_size: int
    precision: str = "off"
    """off | bf16 | fp16."""
    recompute: Recompute = "off"
    """Activation checkpointing."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    world_size: int = 1
    device_type: str = "cpu"
    compiled: bool = False
    """From the first step on. With compile: auto the first steps are eager, and need the most."""
    accumulates: bool = True
    """Whether gradients of earlier micro-batches are there already when one begins."""

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.micro_batch_size * self.model.context_length

    @property
    def activation_bytes(self) -> int:
        """Of a number that a matrix product reads or writes."""
        return 4 if self.precision == "off" else 2
