"""The model's calls of a step, by reference: enough to do one of them again should it turn out to be the bad one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.training_monitor.probes.forward_capture import batch_in
from minigpt.training_monitor.untouched import tensors_in

_GENERATOR = torch.default_generator

Copies = tuple[tuple[Tensor, Tensor], ...]
"""Tensors of a call, each with a copy that nobody else writes to."""


@dataclass(slots=True)
class KeptCall:
    """One call of a model, as it began."""

    module: nn.Module
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    copies: Copies
    versions: list[tuple[Tensor, int]]
    """The tensors in it with their versions: a loop may fill the same memory anew."""
    random: dict[str, Tensor]
    device: torch.device
    autocast: tuple[bool, torch.dtype]
    training: bool

    def is_intact(self) -> bool:
        """Whether its tensors still hold what they held, or were copied."""
        copied = {id(original) for original, _ in self.copies}
        return all(id(each) in copied or _version(each) == version for each, version in self.versions)

    def given(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Its arguments, as they were."""
        copies = {id(original): copy for original, copy in self.copies}
        if not copies:
            return self.arguments, dict(self.named)

        def original(tensor: Tensor) -> Tensor:
            return copies.get(id(tensor), tensor)

        arguments = tuple(with_tensors(value, original) for value in self.arguments)
        return arguments, {name: with_tensors(value, original) for name, value in self.named.items()}

    def batch(self) -> tuple[Tensor, Tensor | None] | None:
        """Its token ids and their targets, where it has any."""
        return batch_in(*self.given())

    def set_random_states(self) -> None:
        """Put torch's generators where they were."""
        for kind, state in self.random.items():
            if kind == "cuda":
                torch.cuda.set_rng_state(state, self.device)
            else:
                torch.set_rng_state(state)


class KeptCalls:
    """Keeps the last `most` calls of a step, and at most `most_bytes` of what they were given; `take` ends the step."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._calls: list[KeptCall] = []
        self._bytes = self.made = 0
        """Calls of the step, kept or not."""

    def add(
        self,
        module: nn.Module,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        device: torch.device,
        copies: Copies = (),
    ) -> None:
        """A call that is about to be made; nothing is copied here, and nothing waits for the device."""
        self.made += 1
        if not self._most:
            return
        try:
            self._keep(module, arguments, named, device, copies)
        except Exception:  # arguments of a kind that cannot be kept: the call itself must not suffer
            return

    def _keep(
        self,
        module: nn.Module,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        device: torch.device,
        copies: Copies,
    ) -> None:
        if any(isinstance(value, Iterator) for value in (*arguments, *named.values())):
            return  # done again, the call would take more out of it
        given = _tensors(arguments, named)
        for tensor in given:
            if tensor.grad_fn is not None:
                # Kept with its graph, an argument would keep the activations of whatever made it.
                arguments = tuple([with_tensors(value, Tensor.detach) for value in arguments])
                named = {name: with_tensors(value, Tensor.detach) for name, value in named.items()}
                given, copies = _tensors(arguments, named), ()
                break
        kind = device.type
        call = KeptCall(
            module,
            arguments,
            named,
            copies,
            [(tensor, _version(tensor)) for tensor in given],
            _random_states(kind, device),
            device,
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)),
            module.training,
        )
        size = 0
        for tensor in given:
            size += tensor.nbytes
        self._calls.append(call)
        self._bytes += size
        if len(self._calls) > self._most or self._bytes > self._most_bytes:
            self._drop()

    def _drop(self) -> None:
        calls = self._calls
        while calls and (len(calls) > self._most or self._bytes > self._most_bytes):
            self._bytes -= sum([tensor.nbytes for tensor, _ in calls.pop(0).versions])

    def take(self) -> "StepCalls":
        """The step's calls, in order; the next step begins."""
        taken = StepCalls(self._calls, self.made)
        self._calls, self._bytes, self.made = [], 0, 0
        return taken


@dataclass(slots=True)
class StepCalls:
    """What was kept of a step's calls."""

    calls: Sequence[KeptCall] = ()
    made: int = 0
    """How many there were: the last ones are kept."""


def _tensors(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> list[Tensor]:
    """As tensors_in, in a fraction of its time for the usual call."""
    found = []
    for value in (*arguments, *named.values()):
        if type(value) is Tensor:
            found.append(value)
        elif value is not None and value is not True and value is not False:
            found += tensors_in(value)
    return found


def _version(tensor: Tensor) -> int:
    """Changes when the tensor is written to; one made in inference mode has none."""
    return 0 if tensor.is_inference() else tensor._version


def _random_states(kind: str, device: torch.device) -> dict[str, Tensor]:
    """What a forward draws from: torch's own state, and the GPU's (kept on the host, so this does not wait)."""
    states = {"torch": _GENERATOR.get_state()}
    if kind == "cuda" and not torch.cuda.is_current_stream_capturing():
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def with_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with every tensor in it changed; what is of an unknown kind stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_tensors(entry, change) for entry in value))
    if type(value) in (list, tuple):
        return type(value)(with_tensors(entry, change) for entry in value)
    if is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Mapping):
        own = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        return replace(value, **{name: with_tensors(entry, change) for name, entry in own.items()})
    if isinstance(value, Mapping):
        changed = {key: with_tensors(entry, change) for key, entry in value.items()}
        return changed if type(value) is dict else _of_kind(value, changed)
    return value


def _of_kind(value: Mapping[Any, Any], content: dict[Any, Any]) -> Any:
    """A mapping of the same class, where it can be made of a dictionary (a tokenizer's output can)."""
    try:
        return type(value)(content)  # type: ignore[call-arg]
    except TypeError:
        return value
