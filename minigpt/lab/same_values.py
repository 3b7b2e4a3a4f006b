"""Where two nested values differ, to the last bit."""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same: where, and how the two differ."""

    place: str
    how: str
    is_tensor: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.how}"


class Walk:
    """Goes through two values side by side and keeps count of what it has seen."""

    def __init__(self) -> None:
        self.tensors = self.numbers = 0

    def differences(self, first: object, second: object, place: str) -> Iterator[Difference]:
        """Equal to the last bit, all the way down; NaN equals NaN, and 0 is not -0."""
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            self.tensors += 1
            self.numbers += first.numel()
            if not _same_bits(first, second):
                yield Difference(place, _how_tensors_differ(first, second), is_tensor=True)
        elif isinstance(first, Mapping) and isinstance(second, Mapping):
            for key in dict.fromkeys([*first, *second]):
                if key in first and key in second:
                    yield from self.differences(first[key], second[key], f"{place} {key}")
                else:
                    yield Difference(f"{place} {key}", f"only in the {'first' if key in first else 'second'}")
        elif _is_list(first) and _is_list(second):
            assert isinstance(first, Sequence)
            assert isinstance(second, Sequence)
            for index, (left, right) in enumerate(zip(first, second, strict=False)):
                yield from self.differences(left, right, f"{place} {index}")
            if len(first) != len(second):
                yield Difference(place, f"{len(first)} entries and {len(second)}")
        else:
            self.numbers += isinstance(first, int | float)
            if not same_value(first, second):
                yield Difference(place, f"{_shown(first)} and {_shown(second)}")


def first_difference(first: object, second: object, place: str) -> str | None:
    """The first difference in words; None: equal to the last bit, all the way down."""
    found = next(Walk().differences(first, second, place), None)
    return None if found is None else str(found)


def same_value(first: object, second: object) -> bool:
    """Of two that hold no others: the same type and the same bits, or both NaN."""
    if isinstance(first, float) and isinstance(second, float):
        if math.isnan(first) and math.isnan(second):
            return True
        return struct.pack("<d", first) == struct.pack("<d", second)
    return type(first) is type(second) and first == second


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _same_bits(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(_bytes(first), _bytes(second))


def _bytes(tensor: Tensor) -> Tensor:
    """(numbers, bytes of each)."""
    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)


def _how_tensors_differ(first: Tensor, second: Tensor) -> str:
    if first.dtype != second.dtype or first.shape != second.shape:
        kinds = [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (first, second)]
        return f"{kinds[0]} and {kinds[1]}"
    apart = (first.double() - second.double()).abs()
    differing = int((_bytes(first) != _bytes(second)).any(dim=1).sum())
    return f"{differing:,} of {first.numel():,} numbers differ, at most by {float(apart.max()):.3g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
