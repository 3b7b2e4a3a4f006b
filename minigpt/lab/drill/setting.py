"""How one tiny training is set up."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn
from torch.optim import SGD, Adafactor, AdamW, Muon, Optimizer

from minigpt.model.config import ModelConfig
from minigpt.optim.config import ScheduleConfig
from minigpt.optim.schedule import lr_at

TINY = ModelConfig(num_layers=4, hidden_size=64, num_heads=4, context_length=64)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training, as a user might choose it; the defaults are healthy."""

    model: ModelConfig = TINY
    vocab_size: int = 256
    language_seed: int = 0
    noise: float = 0.15
    batch_size: int = 8
    accumulation: int = 1
    """Micro-batches of batch_size a step."""
    steps: int = 260
    optimizer: Literal["adamw", "sgd", "muon", "adafactor"] = "adamw"
    learning_rate: float = 3e-3
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="cosine", warmup_steps=40, min_lr_ratio=0.1)
    )
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.9
    """Of SGD."""
    max_grad_norm: float = 1.0
    precision: Literal["fp32", "bf16", "fp16", "pure bf16"] = "fp32"
    """bf16 and fp16 are autocast (fp16 with a GradScaler); pure bf16 has its weights in it."""
    initial_scale: float = 2.0**16
    """Of the GradScaler."""
    label_smoothing: float = 0.0
    shows_batch: bool = True
    """Whether the loop hands inputs and targets to the monitor."""
    shows_schedule: bool = True
    """Whether the monitor knows what the learning rate should be."""

    def planned_lr(self, step: int) -> float:
        """Learning rate of `step`, counted from 1."""
        return lr_at(step - 1, self.schedule, self.learning_rate, self.steps)

    def build_optimizers(self, model: nn.Module) -> list[Optimizer]:
        """The optimizers of all trainable parameters, as a tutorial would make them."""
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.optimizer == "sgd":
            return [SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay)]
        if self.optimizer == "adafactor":
            return [Adafactor(parameters, self.learning_rate, weight_decay=self.weight_decay)]
        matrices: list[nn.Parameter] = []
        if self.optimizer == "muon":
            token = {"embedding.weight", "head.weight"}
            named = [
                (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
            ]
            matrices = [parameter for name, parameter in named if parameter.ndim == 2 and name not in token]
            parameters = [parameter for name, parameter in named if parameter.ndim != 2 or name in token]
        adamw = AdamW(parameters, self.learning_rate, self.betas, self.eps, weight_decay=self.weight_decay)
        if not matrices:
            return [adamw]
        muon = Muon(matrices, self.learning_rate, self.weight_decay, adjust_lr_fn="match_rms_adamw")
        return [muon, adamw]
