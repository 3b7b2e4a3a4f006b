"""First weights of other schools than `minigpt/model/init.py`, laid over a model that is built."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT

Fill = Callable[[Tensor, torch.Generator], object]
"""Fills a matrix [outputs, inputs] in place."""


def _normal(weight: Tensor, generator: torch.Generator, std: float) -> None:
    nn.init.normal_(weight, std=std, generator=generator)


def _xavier(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.xavier_normal_(weight, generator=generator)


def _kaiming(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu", generator=generator)


def _torch_linear(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


XAVIER, KAIMING, TORCH = "Xavier", "Kaiming", "torch's defaults"
FILLS: Mapping[str, Fill] = {
    XAVIER: _xavier,
    KAIMING: _kaiming,
    TORCH: _torch_linear,
}
"""Xavier: std sqrt(2 / (inputs + outputs)) (Glorot and Bengio 2010); Kaiming: sqrt(2 / inputs) (arXiv 1502.01852);
torch's: uniform within 1 / sqrt(inputs), what nn.Linear has when nobody gives it weights."""


def normal(std: float) -> Fill:
    """N(0, std) for every matrix."""
    return partial(_normal, std=std)


@torch.no_grad()
def fill_blocks(model: GPT, fill: Fill, seed: int) -> None:
    """Every matrix of the blocks anew, in place, the same values on every device; norms, embedding and head stay."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(_drawn(module.weight, fill, generator))


@torch.no_grad()
def fill_embedding(model: GPT, fill: Fill, seed: int) -> None:
    """The embedding anew, and with it a head that is tied to it."""
    generator = torch.Generator().manual_seed(seed)
    model.embedding.weight.copy_(_drawn(model.embedding.weight, fill, generator))


def _drawn(like: Tensor, fill: Fill, generator: torch.Generator) -> Tensor:
    # On the CPU: a GPU's generator would give other values for the same seed.
    drawn = torch.empty(like.shape)
    fill(drawn, generator)
    return drawn


@contextmanager
def blocks_filled(model: GPT, fill: Fill, seed: int) -> Iterator[None]:
    """`fill_blocks` for as long as the block runs; then the weights are what they were."""
    before = [parameter.detach().clone() for parameter in model.blocks.parameters()]
    fill_blocks(model, fill, seed)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(model.blocks.parameters(), before, strict=True):
                parameter.copy_(values)
