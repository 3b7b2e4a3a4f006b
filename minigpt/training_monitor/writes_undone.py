"""Undoes what a forward on the side writes into tensors that are not its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from minigpt.training_monitor.untouched import tensors_in


@contextmanager
def writes_undone(model: nn.Module) -> Iterator[None]:
    """Whatever tensor is written to within the block, a parameter, a cache, one that no module knows of, holds at the
    end what it held, and autograd takes it for never changed. Only what is written to is copied.

    What is written without torch's dispatcher (batch_norm's statistics, kernels that do not declare it) is not seen.
    """
    # `parameter.data = other` calls no operator.
    memory = [(parameter, parameter.data) for parameter in model.parameters() if not is_lazy(parameter)]
    writes = _Writes()
    try:
        with writes:
            yield
    finally:
        for parameter, data in memory:
            if parameter.data_ptr() != data.data_ptr():
                parameter.data = data
        writes.undo()


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies a tensor before the first write to its memory, unless that was made in the block."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: set[int] = set()
        self._pieces: set[object] = set()
        self._kept: list[tuple[Tensor, Tensor, int | None]] = []

    def undo(self) -> None:
        # The last first: pieces of one memory may have been written to one after the other.
        for tensor, before, version in reversed(self._kept):
            if version is None:
                with torch.inference_mode():
                    tensor.copy_(before)
            else:
                tensor.data.copy_(before)
                torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))
        self._kept = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for place, name in _written(func):
            for tensor in tensors_in(args[place] if place < len(args) else kwargs.get(name)):
                self._keep(tensor)
        result = func(*args, **kwargs)
        given = {_memory_of(tensor) for tensor in tensors_in((args, kwargs))}
        made = {_memory_of(tensor) for tensor in tensors_in(result)}
        self._made |= made - given
        return result

    def _keep(self, tensor: Tensor) -> None:
        memory = _memory_of(tensor)
        if not memory or memory in self._made or tensor.layout is not torch.strided:
            return
        piece = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if piece not in self._pieces:
            self._pieces.add(piece)
            version = None if tensor.is_inference() else tensor._version
            self._kept.append((tensor, tensor.detach().clone(), version))


def _memory_of(tensor: Tensor) -> int:
    """Where its numbers begin; 0: nowhere that could be told."""
    with suppress(Exception):
        return tensor.untyped_storage().data_ptr()
    return 0


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Place and name of the arguments that an operator writes to."""
    arguments = getattr(getattr(func, "_schema", None), "arguments", ())
    return tuple(
        (place, argument.name)
        for place, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
