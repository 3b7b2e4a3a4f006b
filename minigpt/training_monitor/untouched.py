"""A forward pass on the side, of which training must not notice anything."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DistributedDataParallel (`.module`) and torch.compile (`._orig_mod`).

    Call this one on the side: DDP's own forward talks to the other ranks, which are not listening then.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DistributedDataParallel", "DataParallel"):
            inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it runs through torch.compile."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Random states, buffers (running statistics) and autocast's cache end as they began; compiled parts run eagerly.

    Modes (training or not) and gradients are not touched at all: let nothing in the block call `backward`.
    """
    random_states, other_states = _random_states(model), _states_outside_torch()
    buffers = _buffers(model)
    # Weights cast while no gradient is recorded must not be reused by a forward that needs one.
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with _eagerly(model):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for owner, name, buffer, value in buffers:
            owner._buffers[name] = buffer
            # Through `.data`, or a backward that still needs the buffer would complain of a change.
            _once(buffer.data).copy_(value)
        _restore_random_states(random_states)
        _restore_states_outside_torch(*other_states)


@contextmanager
def _eagerly(model: nn.Module) -> Iterator[None]:
    if not is_compiled(model):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _buffers(model: nn.Module) -> list[tuple[nn.Module, str, Tensor, Tensor]]:
    """Owner, name, tensor and value of every buffer. All of them: batch_norm changes its own without a version."""
    return [
        (owner, name, buffer, _once(buffer.detach()).clone())
        for owner in model.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]


def _once(buffer: Tensor) -> Tensor:
    """What `expand` made of it, only once: such memory cannot be written to."""
    for dim, (size, stride) in enumerate(zip(buffer.shape, _strides(buffer), strict=True)):
        if stride == 0 and size > 1:
            buffer = buffer.narrow(dim, 0, 1)
    return buffer


def _strides(buffer: Tensor) -> tuple[int, ...]:
    return buffer.stride() if buffer.layout is torch.strided else (1,) * buffer.ndim


def _random_states(model: nn.Module) -> dict[torch.device, Tensor]:
    devices = {parameter.device for parameter in model.parameters()}
    states: dict[torch.device, Tensor] = {torch.device("cpu"): torch.get_rng_state()}
    for device in devices:
        if device.type == "cuda":
            states[device] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            states[device] = torch.mps.get_rng_state()
    return states


def _restore_random_states(states: dict[torch.device, Tensor]) -> None:
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.set_rng_state(state)


def _states_outside_torch() -> tuple[Any, Any]:
    """Python's own generator, and numpy's where somebody has imported it."""
    numpy: Any = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else numpy.random.get_state()


def _restore_states_outside_torch(python: Any, of_numpy: Any) -> None:
    random.setstate(python)
    if of_numpy is not None:
        sys.modules["numpy"].random.set_state(of_numpy)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists, mappings and output objects, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    if hasattr(value, "values") and callable(value.values):
        return [tensor for entry in value.values() for tensor in tensors_in(entry)]
    fields = getattr(value, "__dataclass_fields__", None)
    return [tensor for name in fields for tensor in tensors_in(getattr(value, name))] if fields else []
