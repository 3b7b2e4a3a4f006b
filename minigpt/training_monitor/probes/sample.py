"""A fixed sample of every parameter's elements: what moved, and which gradients are exactly zero."""

from collections.abc import Sequence
from math import gcd, sqrt

import torch
from torch import Tensor

from minigpt.training_monitor.probes.upload import uploaded

SAMPLED = 256


class WeightSample:
    """At most SAMPLED elements of each tensor, evenly spread; small tensors whole.

    Views of the tensors' memory: `take` sees the values of its moment.
    """

    def __init__(self, tensors: Sequence[Tensor], home: torch.device) -> None:
        views = [spread(tensor) for tensor in tensors]
        self._home = home
        self._pieces = _padded(views, 0.0)
        self._at_home = all(piece.device == home for piece in self._pieces)
        self.scales = [sqrt(t.numel() / view.numel()) for t, view in zip(tensors, views, strict=True)]
        """What turns the norm of a row into the estimated norm of its tensor."""
        self.looked_at = [view.numel() for view in views]
        """Elements of each row that are a tensor's."""

    def take(self) -> Tensor:
        """(tensors, SAMPLED) values now, at least fp32; short rows end in zeros."""
        return _rows(self._pieces if self._at_home else _brought(self._pieces, self._home), self._home)


def zero_fractions(gradients: Sequence[Tensor], home: torch.device) -> Tensor:
    """(N,) share of the sampled elements of each gradient that are exactly zero."""
    views = [spread(gradient) for gradient in gradients]
    counts = (_rows(_brought(_padded(views, 1.0), home), home) == 0).sum(dim=1).float()
    return counts / uploaded([float(view.numel()) for view in views], home)


def spread(tensor: Tensor) -> Tensor:
    """1-D view of up to SAMPLED elements.

    The stride has no divisor in common with the width, or the sample would stay in a few columns.
    """
    if not tensor.is_contiguous():
        tensor = _in_order_of_memory(tensor)
    elements, width = tensor.numel(), tensor.shape[-1] if tensor.ndim > 1 else 1
    stride = -(-elements // SAMPLED)
    while gcd(stride, width) > 1:
        stride += 1
    step = tensor.stride(-1) if tensor.ndim else 1
    return tensor.as_strided((-(-elements // stride),), (stride * step,))


def _in_order_of_memory(tensor: Tensor) -> Tensor:
    """The same elements as a contiguous view; of memory with gaps only the longest dimension's first line."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    permuted = tensor.permute(order)
    if permuted.is_contiguous():
        return permuted
    longest = max(range(tensor.ndim), key=tensor.size)
    return tensor[tuple(slice(None) if axis == longest else 0 for axis in range(tensor.ndim))]


def _padded(views: list[Tensor], filler: float) -> list[Tensor]:
    """The views, each followed by what is missing to a whole row."""
    pieces = []
    for view in views:
        pieces.append(view)
        if view.numel() < SAMPLED:
            pieces.append(view.new_full((SAMPLED - view.numel(),), filler))
    return pieces


def _brought(pieces: list[Tensor], home: torch.device) -> list[Tensor]:
    return [piece if piece.device == home else piece.to(home, non_blocking=True) for piece in pieces]


def _rows(pieces: list[Tensor], home: torch.device) -> Tensor:
    if not pieces:
        return torch.zeros(0, SAMPLED, device=home)
    values = torch.cat(pieces).view(-1, SAMPLED)
    return values.float() if values.dtype.itemsize < 4 else values
