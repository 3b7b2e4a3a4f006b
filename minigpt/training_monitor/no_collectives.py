"""A forward on one rank must not start what all ranks have to do together: they are not listening."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

COLLECTIVES = ("c10d", "_c10d_functional", "c10d_functional", "_dtensor")
SHARDED = ("FullyShardedDataParallel", "FSDP", "DeepSpeedEngine", "TensorParallel", "PipelineStage")
"""Beginnings of the names of classes whose forward gathers the weights from the other ranks."""


class CollectiveRefusedError(RuntimeError):
    """What ran wanted to talk to the other ranks."""


@contextmanager
def no_collectives(model: nn.Module) -> Iterator[None]:
    """While entered, a call to the other ranks raises instead of waiting for them for ever.

    Raises:
        CollectiveRefusedError: at once, where the model's weights lie on several ranks.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield
        return
    if is_sharded(model):
        raise CollectiveRefusedError("the weights are spread over the ranks")
    with _Refusing():  # type: ignore[no-untyped-call]
        yield


def is_sharded(model: nn.Module) -> bool:
    """Whether no rank has the whole model."""
    if any(type(module).__name__.startswith(SHARDED) for module in model.modules()):
        return True
    return any(hasattr(parameter, "device_mesh") for parameter in model.parameters())


class _Refusing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.namespace in COLLECTIVES:
            raise CollectiveRefusedError("its forward talks to the other ranks")
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))
