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


def l2_norms(tensors: Sequence[Tensor], home: torch.device) -> Tensor:
    """(N,) fp32 norms on `home`, in order; the tensors may differ in device, dtype and layout."""
    if not tensors:
        return torch.zeros(0, device=home)
    alike: dict[tuple[torch.device, torch.dtype, bool], list[int]] = {}
    for index, tensor in enumerate(tensors):
        rows = tensor.is_cpu and tensor.numel() >= LARGE and _cuts_into_rows(tensor)
        alike.setdefault((tensor.device, tensor.dtype, rows), []).append(index)
    parts = []
    for (_, _, rows), indices in alike.items():
        members = [tensors[index] for index in indices]
        parts.append((_by_rows(members) if rows else _whole(members)).to(home, non_blocking=True))
    if len(parts) == 1:
        return parts[0]
    order = [0] * len(tensors)
    for place, index in enumerate(index for indices in alike.values() for index in indices):
        order[index] = place
    return torch.cat(parts)[uploaded(order, home)]


def real_values(tensor: Tensor) -> Tensor:
    """The real numbers that a parameter or gradient holds on this rank: of a DTensor its shard, of a complex
    one both parts, of a sparse one the values, summed over duplicates (on CUDA, that costs a sync)."""
    values = tensor.detach()
    if type(values) is not Tensor and isinstance(values, _HasShard):
        values = values.to_local()
    if values.is_sparse:
        values = values.coalesce().values()
    if values.is_complex():
        values = torch.view_as_real(values)
    return values


def _by_rows(tensors: list[Tensor]) -> Tensor:
    rows = [torch.linalg.vector_norm(t.view(ROWS, -1), dim=1, dtype=_sum_type(t)) for t in tensors]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(rows), dim=1)
    return norms.float()


def _whole(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, 2, _sum_type(tensors[0]))).float()


def _cuts_into_rows(tensor: Tensor) -> bool:
    return tensor.numel() % ROWS == 0 and tensor.is_contiguous()


def _sum_type(tensor: Tensor) -> torch.dtype | None:
    """fp32 where squares would overflow (300 squared does in fp16); None: the tensor's own."""
    return torch.float32 if tensor.dtype.itemsize < 4 else None
