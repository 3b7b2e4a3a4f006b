"""How a run is spread over processes."""

from typing import Literal

from minigpt.schema import Config


class DistributedConfig(Config):
    """How a run is spread over processes (started by torchrun)."""

    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """auto: one process alone, or DistributedDataParallel under torchrun."""
