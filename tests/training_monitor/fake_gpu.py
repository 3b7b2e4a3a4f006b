"""GPUs that are not there: fake tensors know their device and shape, and have no values that a host could wait for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training_monitor.device_side import place_of

CUDA = torch.device("cuda", 0)
SECOND = torch.device("cuda", 1)


class Transfers(TorchDispatchMode):
    """While entered, keeps what crosses between host and device, as (kind, place in our code).

    `waits`: the host stands still until the device is there. `uploads`: small pageable memory on its way to the
    device, for which CUDA's driver may wait.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []
        self.uploads: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in ("_to_copy", "copy_"):
            here, there = (args[0], result) if name == "_to_copy" else (args[1], args[0])
            free = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if here.is_cpu != there.is_cpu:
                place = place_of(sys._getframe())
                # What comes to the host without a wait is not there yet: only a pinned buffer may be read later.
                if not (free and getattr(here, "pinned", False)):
                    (self.uploads if free and here.is_cpu else self.waits).append(place)
        if name.startswith("index"):
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            if tensors[0].is_cuda and any(each.is_cpu and each.ndim for each in tensors[1:]):
                self.waits.append(place_of(sys._getframe()))
        return result


def _item(tensor: Tensor, index: Any) -> Tensor:
    """`tensor[index]`, of a tensor, or of integers and slices."""
    if isinstance(index, Tensor):
        return torch.ops.aten.index.Tensor(tensor, [index])  # type: ignore[no-any-return]
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in index:
        gap = index.index(Ellipsis)
        missing = tensor.ndim - (len(index) - 1)
        index = (*index[:gap], *(slice(None),) * missing, *index[gap + 1 :])
    axis = 0
    for entry in index:
        if isinstance(entry, int):
            tensor = torch.ops.aten.select.int(tensor, axis, entry)
        else:
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, entry.start, entry.stop, entry.step or 1)
            axis += 1
    return tensor


def _pinned(tensor: Tensor) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


class _Unguarded(TorchFunctionMode):
    """A torch without CUDA has no device guard, which a few of Tensor's methods ask for: the same by other doors."""

    DOORS: ClassVar = {
        Tensor.__getitem__: _item,
        Tensor.__invert__: torch.bitwise_not,
        Tensor.copy_: torch.ops.aten.copy_.default,
        # No memory is pinned where there is no CUDA; but what is said to be may travel freely.
        Tensor.pin_memory: _pinned,
    }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with suppress(TypeError):  # not hashable
            func = self.DOORS.get(func, func)
        return func(*args, **kwargs or {})


@contextmanager
def fake_gpus() -> Iterator[Transfers]:
    """In this block tensors may be made on CUDA; whatever needs a value of theirs raises.

    Without a real GPU no graph can be recorded: give parameters their gradients with `with_gradients`.
    """
    with FakeTensorMode(), torch.no_grad(), _Unguarded(), Transfers() as transfers:
        yield transfers


def put(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The module, with parameters and buffers of no value on a fake device."""
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                like = torch.empty(parameter.shape, device=device, dtype=dtype)
                owner._parameters[name] = nn.Parameter(like, parameter.requires_grad)
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = torch.empty(buffer.shape, device=device, dtype=buffer.dtype)
    return module


def with_gradients(model: nn.Module) -> None:
    """As a backward would leave them."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
