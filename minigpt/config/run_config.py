"""The configuration of a whole run, composed of the parts' own."""

from typing import Self

from pydantic import model_validator

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.data.config import DataConfig
from minigpt.distributed.config import DistributedConfig
from minigpt.model.config import ModelConfig
from minigpt.optim.config import OptimizerConfig, ScheduleConfig
from minigpt.schema import Config
from minigpt.training.config import TrainingConfig
from minigpt.training_monitor.config import MonitorConfig


class RunConfig(Config):
    """Everything a pretraining run needs to know, section by section."""

    model: ModelConfig = ModelConfig()
    """Shape and options of the transformer."""
    data: DataConfig = DataConfig()
    """The corpus and its preparation."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """What turns gradients into updates."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate over the steps."""
    training: TrainingConfig = TrainingConfig()
    """Length, batch, precision and rhythm of the run."""
    monitor: MonitorConfig = MonitorConfig()
    """What counts as unhealthy, and what is done about it."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """When checkpoints are written and which of them stay."""
    distributed: DistributedConfig = DistributedConfig()
    """How the run is spread over processes."""

    @model_validator(mode="after")
    def _check_sections_fit(self) -> Self:
        problems = []
        tokens, context_length = self.training.tokens_per_step, self.model.context_length
        if tokens % context_length:
            fits = [
                str(windows * context_length)
                for windows in (tokens // context_length, tokens // context_length + 1)
                if windows
            ]
            problems.append(
                f"training.tokens_per_step = {tokens} is not a multiple of model.context_length = "
                f"{context_length}; use {' or '.join(fits)}"
            )
        if self.distributed.strategy == "fsdp":
            problems.append(
                "distributed.strategy = fsdp is not built yet; use ddp (auto picks it under torchrun)"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self
