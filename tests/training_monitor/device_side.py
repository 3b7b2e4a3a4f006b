"""A CPU that plays a GPU: tensors that descend from the model's lie "on the device" (and say that they are not on the
CPU), and reading one is a host sync."""

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

# What waits for the device on CUDA, by aten's names: a number or a shape that only the device knows.
WAITING = frozenset(
    (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "allclose",
        "bincount",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "repeat_interleave",
    )
)
# These hand memory to Python below the dispatcher.
READING = frozenset(("tolist", "numpy", "__array__", "cpu"))
# This file, and the one about GPUs that are not there.
PLAYING = ("device_side.py", "fake_gpu.py")


class DeviceSide:
    """While entered, `syncs` collects where the host reads what lies on the device: the nearest line of our own."""

    def __init__(self, *models: nn.Module) -> None:
        self.syncs: list[str] = []
        self._tensors: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        for model in models:
            self.put([*model.parameters(), *model.buffers()])
        self._modes = (_Dispatched(self), _Called(self))

    def put(self, tensors: Iterable[Tensor]) -> None:
        """These lie on the device from now on."""
        for tensor in tensors:
            self._tensors[tensor] = True

    def holds(self, values: Any) -> bool:
        """Whether one of them lies there."""
        return any(isinstance(value, Tensor) and value in self._tensors for value in tree_leaves(values))

    def note(self) -> None:
        """The host waits."""
        self.syncs.append(place_of(sys._getframe()))

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)  # type: ignore[no-untyped-call]


class _Dispatched(TorchDispatchMode):
    def __init__(self, side: DeviceSide) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._side = side

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        there = self._side.holds((args, kwargs))
        name = func.name().removeprefix("aten::").partition(".")[0]
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if there and (name in WAITING or masks):
            self._side.note()
        result = func(*args, **kwargs)
        if there:
            changed = args if name.endswith("_") else ()
            self._side.put(leaf for leaf in tree_leaves((result, changed)) if isinstance(leaf, Tensor))
        return result


class _Called(TorchFunctionMode):
    def __init__(self, side: DeviceSide) -> None:
        super().__init__()
        self._side = side

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        there = self._side.holds(args)
        if there and func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return False
        if there and getattr(func, "__name__", "") in READING:
            self._side.note()
        return func(*args, **kwargs or {})


def place_of(frame: FrameType | None) -> str:
    """`file.py:function` of the innermost frame that is neither torch's nor a test's stage."""
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.endswith(PLAYING) and "/torch/" not in path:
            return f"{path.rpartition('/')[2]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "?"
