"""The numbers of one tensor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.layers.names import Place, place_of

_PIECE = 1 << 22
"""Elements that are widened at a time: a large matrix of half precision is never held twice in full."""


@dataclass(frozen=True)
class TensorStats:
    """One weight in numbers; norms and RMS are NaN where an element is not finite."""

    name: str
    place: Place
    shape: tuple[int, ...]
    norm: float
    rms: float
    largest: float
    """Of the absolute values that are finite."""
    zeros: float
    """Share of the elements, 0..1."""
    non_finite: int
    """Elements."""
    grad_norm: float | None = None
    """Of one batch's mean loss; None: not measured."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def measured(name: str, weight: Tensor, grad_norm: float | None = None) -> TensorStats:
    """The numbers of `weight`, summed in fp64."""
    squares, largest, zeros, non_finite = 0.0, 0.0, 0, 0
    for piece in torch.split(weight.detach().reshape(-1), _PIECE):
        values = piece.double()
        finite = values.isfinite()
        non_finite += values.numel() - int(finite.sum())
        zeros += int((values == 0).sum())
        kept = values[finite]
        squares += float(kept.square().sum())
        largest = max(largest, float(kept.abs().max()) if kept.numel() else 0.0)
    norm = math.nan if non_finite else math.sqrt(squares)
    return TensorStats(
        name=name,
        place=place_of(name),
        shape=tuple(weight.shape),
        norm=norm,
        rms=norm / math.sqrt(weight.numel()),
        largest=largest,
        zeros=zeros / weight.numel(),
        non_finite=non_finite,
        grad_norm=grad_norm,
    )


def norm_of(gradient: Tensor) -> float:
    """NaN where an element is not finite."""
    norm = float(torch.linalg.vector_norm(gradient.detach().float()))
    return norm if math.isfinite(norm) else math.nan


def pooled_rms(of: Sequence[TensorStats]) -> float:
    """RMS over several tensors as if they were one (experts of a layer)."""
    count = sum(one.count for one in of)
    return math.sqrt(sum(one.norm**2 for one in of) / count) if count else math.nan


def pooled_grad(of: Sequence[TensorStats]) -> float | None:
    """Gradient norm over several tensors as if they were one; None where none was measured."""
    norms = [one.grad_norm for one in of if one.grad_norm is not None]
    return math.sqrt(sum(norm**2 for norm in norms)) if norms else None
