"""A run: the built parts that the loop works with, and where it stands. No methods: the loop has the verbs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from minigpt.checkpoint.config import CheckpointConfig
from minigpt.checkpoint.lock import HeldFolder
from minigpt.data.loader import BatchLoader
from minigpt.data.tokenizer import Tokenizer
from minigpt.data.windows import Windows
from minigpt.distributed.world import World
from minigpt.model.gpt import GPT
from minigpt.optim.config import ScheduleConfig
from minigpt.optim.schedule import LoweredRate
from minigpt.planning.workload import Workload
from minigpt.training.compile_costs import Pace
from minigpt.training.config import TrainingConfig
from minigpt.training.interrupt import Interrupt
from minigpt.training.precision import Precision
from minigpt.training.progress import Progress
from minigpt.training.refusals import Refusals
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.probes.model_probe import ModelProbe
from minigpt.training_monitor.sinks.protocol import Sink


@dataclass
class Position:
    """Where a run stands: the counters that a checkpoint carries."""

    step: int = 0
    """Finished updates."""
    tokens_seen: int = 0
    """Targets trained on so far."""
    window: int = 0
    """Windows consumed so far: the data's whole resume state."""
    best_step: int | None = None
    best_loss: float | None = None
    """Validation loss at `best_step`, the lowest so far."""
    evaluated_step: int | None = None
    """The last step that was evaluated: an evaluation that an interrupt cut short is made up for on resume."""
    compiled_from: int | None = None
    """Finished updates when the run went over to compiled code: a resumed run does so at the same step, since
    compiled arithmetic rounds differently."""
    lowered: LoweredRate | None = None
    """The learning rate's last lowering by the monitor's policy."""
    rollbacks: int = 0
    """How often the monitor's policy has taken the run back."""


@dataclass
class Run:
    """One pretraining run on one rank."""

    name: str
    run_dir: Path
    config: TrainingConfig
    schedule: ScheduleConfig
    checkpoints: CheckpointConfig
    learning_rate: float
    world: World
    precision: Precision
    model: GPT
    forward: nn.Module
    """The model, wrapped in DistributedDataParallel where there are several ranks."""
    optimizers: Sequence[Optimizer]
    scaler: torch.amp.GradScaler
    probe: ModelProbe
    loader: BatchLoader
    windows_per_epoch: int
    validation: Windows
    bytes_per_token: float
    """Bytes of validation text a token stands for."""
    tokenizer: Tokenizer
    micro_batch_size: int
    workload: Workload
    """What a rank computes in one forward and backward, at the micro-batch that the run began with."""
    monitor: TrainingMonitor
    sinks: Sink
    progress: Progress
    interrupt: Interrupt
    flops_per_token: int
    peak_flops: float | None
    """Of all ranks' devices together; None where unknown."""
    identity: dict[str, Any]
    """What a checkpoint says of the run besides its state: config, overrides, tokenizer, versions."""
    buffers_kept: bool = False
    """Whether big buffers stay mapped from step to step."""
    position: Position = field(default_factory=Position)
    held: HeldFolder | None = None
    """The lock on `run_dir`, on the main rank; None where nobody else can write there (tests, experiments)."""
    refusals: Refusals = field(default_factory=Refusals)
    skip_above: float | None = None
    """The coming step's update is called off if its gradient norm is larger; None: no such bound."""
    reads_late: bool | None = None
    """Whether a step's numbers are read while the next one runs; None: on CUDA, where reading would wait."""
    sinks_state: dict[str, Any] = field(default_factory=dict)
    """What the sinks of the checkpoint that the run goes on from remembered; theirs, once they are open."""
    events_bytes: int | None = None
    """Length of events.jsonl when the checkpoint that the run goes on from was written; None: not known."""
    pace: Pace = field(default_factory=Pace)
    """How long its steps take in this process, before and after compiling."""
    compiling_tried: bool = False
    """Whether this process has compiled the model or failed to."""
