"""Next-token cross-entropy in fp32, summed so that any split of a batch adds up to the whole."""

# B batch, T time, V vocabulary

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100


class LossSums(NamedTuple):
    """Sums over the targets that are not IGNORE_INDEX, each a 0-dim fp32 tensor in nats."""

    total: Tensor
    """What to differentiate: cross-entropy plus the weighted z-loss."""
    cross_entropy: Tensor
    """What to report (detached)."""


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """`cap * tanh(logits / cap)` in the logits' dtype, computed in fp32; the logits where there is no cap."""
    return logits if cap is None else (cap * torch.tanh(logits.float() / cap)).to(logits.dtype)


def summed_loss(logits_BTV: Tensor, targets_BT: Tensor, z_loss_weight: float) -> LossSums:
    """Summed cross-entropy and, with a weight, z-loss: the squared log-partition (PaLM, arXiv 2204.02311, 5)."""
    logits = logits_BTV.float().flatten(0, 1)
    targets = targets_BT.flatten()
    cross_entropy = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    total = cross_entropy
    if z_loss_weight:
        squares = logits.logsumexp(dim=-1).square()
        total = total + z_loss_weight * squares.masked_fill(targets == IGNORE_INDEX, 0.0).sum()
    return LossSums(total, cross_entropy.detach())
