"""L2 norms of many tensors as one vector: deterministic, in fp32, and without a host sync."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from minigpt.training_monitor.probes.upload import uploaded

# torch's CPU kernels norm a whole tensor on one thread, and the rows of a matrix on all of them: large tensors
# are cut into this many rows. Each row is summed by one thread, so the result does not depend on their number.
ROWS = 64
LARGE = 2**15


@runtime_checkable
class _HasShard(Protocol):
    """A DTensor, whose own class is slow to import."""

    def to_local(self) -> Tensor: ...


class Norms:
    """Norms of the same tensors again and again, of their values at each `take`: how is decided once."""

    def __init__(self, tensors: Sequence[Tensor], home: torch.device) -> None:
        """The tensors may differ in device, dtype and layout."""
        self._home = home
        alike: dict[tuple[torch.device, torch.dtype, bool], list[int]] = {}
        for index, tensor in enumerate(tensors):
            rows = tensor.is_cpu and tensor.numel() >= LARGE and _cuts_into_rows(tensor)
            alike.setdefault((tensor.device, tensor.dtype, rows), []).append(index)
        self._parts = [
            ([tensors[index].view(ROWS, -1) if rows else tensors[index] for index in indices], rows)
            for (_, _, rows), indices in alike.items()
        ]
        self._order: Tensor | None = None
        if len(alike) > 1:
            order = [0] * len(tensors)
            for place, index in enumerate(index for indices in alike.values() for index in indices):
                order[index] = place
            self._order = uploaded(order, home)

    def take(self) -> Tensor:
        """(N,) fp32 norms on `home`, in the order of the tensors."""
        if not self._parts:
            return torch.zeros(0, device=self._home)
        parts = [
            (_by_rows(members) if rows else _whole(members)).to(self._home, non_blocking=True)
            for members, rows in self._parts
        ]
        return parts[0] if self._order is None else torch.cat(parts)[self._order]


def l2_norms(tensors: Sequence[Tensor], home: torch.device) -> Tensor:
    """(N,) fp32 norms on `home`, in order; the tensors may differ in device, dtype and layout."""
    return Norms(tensors, home).take()


def real_values(tensor: Tensor) -> Tensor:
    """The real numbers that a parameter or gradient holds on this rank: of a DTensor its shard, of a complex
    one both parts, of a sparse one the values, summed over duplicates (on CUDA, that costs a sync)."""
    if type(tensor) is Tensor and not (tensor.requires_grad or tensor.is_sparse or tensor.is_complex()):
        return tensor  # nearly every gradient
    values = tensor.detach()
    if type(values) is not Tensor and isinstance(values, _HasShard):
        values = values.to_local()
    if values.is_sparse:
        values = values.coalesce().values()
    if values.is_complex():
        values = torch.view_as_real(values)
    return values


def _by_rows(tensors: list[Tensor]) -> Tensor:
    rows = [torch.linalg.vector_norm(tensor, dim=1, dtype=_sum_type(tensor)) for tensor in tensors]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(rows), dim=1)
    return norms.float()


def _whole(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, 2, _sum_type(tensors[0]))).float()


def _cuts_into_rows(tensor: Tensor) -> bool:
    return tensor.numel() % ROWS == 0 and tensor.is_contiguous()


def _sum_type(tensor: Tensor) -> torch.dtype | None:
    """fp32 where squares would overflow (300 squared does in fp16); None: the tensor's own."""
    return torch.float32 if tensor.dtype.itemsize < 4 else None
