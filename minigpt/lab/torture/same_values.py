"""The first place where two nested values differ by a bit."""

import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def first_difference(first: object, second: object, place: str = "") -> str | None:
    """The path of the first difference, with both values; None: equal to the last bit, all the way down."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _of_tensors(first, second, place)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in [*first, *(key for key in second if key not in first)]:
            if key not in first or key not in second:
                return f"{place}.{key}: only in the {'first' if key in first else 'second'}"
            if (found := first_difference(first[key], second[key], f"{place}.{key}")) is not None:
                return found
        return None
    if _is_list(first) and _is_list(second):
        assert isinstance(first, Sequence)
        assert isinstance(second, Sequence)
        for index, (left, right) in enumerate(zip(first, second, strict=False)):
            if (found := first_difference(left, right, f"{place}[{index}]")) is not None:
                return found
        return None if len(first) == len(second) else f"{place}: {len(first)} entries, {len(second)}"
    if isinstance(first, float) and isinstance(second, float):
        same = struct.pack("d", first) == struct.pack("d", second) or (first != first and second != second)
    else:
        same = type(first) is type(second) and first == second
    return None if same else f"{place}: {first!r}, {second!r}"


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _of_tensors(first: Tensor, second: Tensor, place: str) -> str | None:
    facts = [(str(each.dtype), tuple(each.shape)) for each in (first, second)]
    if facts[0] != facts[1]:
        return f"{place}: {facts[0]}, {facts[1]}"
    left, right = (each.contiguous().reshape(-1).view(torch.uint8) for each in (first, second))
    if torch.equal(left, right):
        return None
    at = int((left != right).nonzero()[0]) // first.element_size()
    return f"{place}[{at}]: {first.flatten()[at].item()!r}, {second.flatten()[at].item()!r}"
