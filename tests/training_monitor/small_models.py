"""Models so small that a test can afford them."""

import torch
from torch import Tensor, nn

from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize


def gpt(**changes: object) -> GPT:
    model = GPT(ModelConfig(num_layers=2, hidden_size=16, num_heads=4, context_length=16, **changes), 64)
    initialize(model, 0)
    return model


def tokens(batch: int = 2) -> Tensor:
    return torch.randint(0, 64, (batch, 16), generator=torch.Generator().manual_seed(1))


def number_of_hooks(model: nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())
