"""Identity and make-up of a step's tokens: on the host where they are there, on CUDA without a sync."""

# B batch, T time

import ctypes
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt.training_monitor.batch_facts import BatchFacts

IGNORED = -100
COUNTABLE = 2**17
"""Ids below this are counted in a table, others by sorting."""
# Odd 64-bit constants of splitmix64 (Steele et al., OOPSLA 2014), as signed numbers.
MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)


@dataclass
class BatchProbe:
    """Takes in the micro-batches of a step with `add`, then gives them up with `take`."""

    _pairs: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)

    def add(self, inputs: Tensor, targets: Tensor | None = None) -> None:
        """(B, T) ids and their targets, or (T,); tensors that change afterwards must not be given."""
        self._pairs.append((inputs.detach(), None if targets is None else targets.detach()))

    def clear(self) -> None:
        self._pairs = []

    def take(self) -> "BatchFacts | DeviceBatch | None":
        """The step's facts, or the vector they can be read from once it is on the host; None: nothing seen."""
        pairs, self._pairs = self._pairs, []
        pairs = [(inputs, targets) for inputs, targets in pairs if inputs.numel()]
        if not pairs:
            return None
        with torch.no_grad():
            given = [tensor for pair in pairs for tensor in pair if tensor is not None]
            home = next((tensor.device for tensor in given if tensor.is_cuda), None)
            if home is not None:
                return device_batch(pairs, home)
            # Other devices are waited for at each step anyway, and lack some of the integer arithmetic.
            return batch_facts([(inputs.cpu(), None if t is None else t.cpu()) for inputs, t in pairs])


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """Facts still on the device: an fp32 vector, exact (counts and pieces of the hash stay below 2^24)."""

    vector: Tensor
    tokens: int

    def read(self, values: Sequence[float]) -> BatchFacts:
        """The facts from the vector's values."""
        *pieces, distinct, top, matches, matched, copies, copied, ignored, targets = values
        return BatchFacts(
            hash=sum(int(piece) << 24 * place for place, piece in enumerate(pieces)),
            tokens=self.tokens,
            distinct_tokens=int(distinct),
            top_fraction=top / self.tokens,
            label_match=_share(matches, matched),
            label_copy=_share(copies, copied),
            ignored_fraction=_share(ignored, targets),
        )


def batch_facts(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> BatchFacts:
    """The facts of a step's micro-batches, inputs and targets (B, T) each, all on the host."""
    crc = 0
    for inputs, _ in pairs:
        crc = _crc32(inputs, crc)
    ids = torch.cat([inputs.reshape(-1) for inputs, _ in pairs])
    low, high = (int(bound) for bound in torch.aminmax(ids))
    if low >= 0 and high < COUNTABLE:
        counts = torch.bincount(ids)
        distinct, top = int(counts.count_nonzero()), int(counts.max())
    else:
        counts = torch.unique(ids, return_counts=True)[1]
        distinct, top = counts.numel(), int(counts.max())
    matches, matched, copies, copied, ignored, targets = (int(count) for count in _label_counts(pairs))
    return BatchFacts(
        hash=crc,
        tokens=ids.numel(),
        distinct_tokens=distinct,
        top_fraction=top / ids.numel(),
        label_match=_share(matches, matched),
        label_copy=_share(copies, copied),
        ignored_fraction=_share(ignored, targets),
    )


def _crc32(tensor: Tensor, crc: int) -> int:
    """CRC-32 over the tensor's memory, continued from `crc` (without numpy, which torch may lack)."""
    values = tensor.contiguous()
    memory = (ctypes.c_char * (values.numel() * values.element_size())).from_address(values.data_ptr())
    return zlib.crc32(memory, crc)


def device_batch(pairs: Sequence[tuple[Tensor, Tensor | None]], home: torch.device) -> DeviceBatch:
    """The same facts, not waited for; the hash is another than the host's."""
    here = [
        (inputs.to(home, non_blocking=True), None if targets is None else targets.to(home, non_blocking=True))
        for inputs, targets in pairs
    ]
    ids = torch.cat([inputs.reshape(-1) for inputs, _ in here]).long()
    # Sums of integers wrap around and do not depend on their order.
    places = torch.arange(ids.numel(), device=home) * MIX[0]
    mixed = (ids + 1) * MIX[1] ^ places
    mixed = (mixed ^ (mixed >> 29)) * MIX[2]
    digest = (mixed ^ (mixed >> 32)).sum()
    pieces = [digest & 0xFFFFFF, (digest >> 24) & 0xFFFFFF]
    ordered = ids.sort().values
    distinct = (ordered.diff() != 0).sum() + 1
    top = (torch.searchsorted(ordered, ordered, right=True) - torch.searchsorted(ordered, ordered)).max()
    # A fill: a number made into a tensor on the host and brought over would be waited for.
    counts = [
        count if isinstance(count, Tensor) else torch.full((), count, dtype=torch.long, device=home)
        for count in _label_counts(here)
    ]
    return DeviceBatch(torch.stack([*pieces, distinct, top, *counts]).float(), ids.numel())


def _label_counts(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor | int, ...]:
    """How many targets equal the next input, of how many; equal their own, of how many; are ignored, of how many."""
    totals: list[Tensor | int] = [0] * 6
    for inputs, targets in pairs:
        if targets is None:
            continue
        valid = targets != IGNORED
        totals[4] += (~valid).sum()
        totals[5] += targets.numel()
        if targets.shape == inputs.shape:
            ahead = valid[..., :-1]
            totals[0] += ((targets[..., :-1] == inputs[..., 1:]) & ahead).sum()
            totals[1] += ahead.sum()
            totals[2] += ((targets == inputs) & valid).sum()
            totals[3] += valid.sum()
    return tuple(totals)


def _share(count: float, of: float) -> float | None:
    return count / of if of else None
