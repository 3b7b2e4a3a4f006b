"""What modules remember outside of their tensors: counters, lists of losses, caches, generators."""

import io
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

MOST_ENTRIES = 100_000
"""Of containers within containers that are followed: beyond lies a vocabulary or a data set, no state of a forward."""


class NotKeptError(Exception):
    """A module holds what would not end as it began."""


@contextmanager
def attributes_kept(model: nn.Module, given: object = None) -> Iterator[None]:
    """What the modules remember ends as it began, and so does what they are `given` (a cache, say): nested containers,
    and objects within objects.

    What those hold in turn, and what lies outside of the modules, is not followed. Nor are the numbers in tensors: see
    writes_undone.

    Raises:
        NotKeptError: at once, where a module holds an iterator, or is given one.
    """
    memory = _Memory()
    for module in model.modules():
        memory.keep_module(module)
    memory.keep(given)
    try:
        yield
    finally:
        memory.restore()


class _Memory:
    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._left = MOST_ENTRIES
        self._undo: list[Callable[[], object]] = []

    def restore(self) -> None:
        for undo in self._undo:
            undo()

    def keep_module(self, module: nn.Module) -> None:
        own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
        self._undo.append(lambda: _restore_table(vars(module), own, _OF_EVERY_MODULE))
        tables: Any = (module._parameters, module._buffers, module._modules)
        for table in tables:
            self._keep_table(table)
        for value in own.values():
            self.keep(value)

    def _keep_table(self, table: dict[str, Any]) -> dict[str, Any]:
        before = dict(table)
        self._undo.append(lambda: _restore_table(table, before))
        return before

    def keep(self, value: Any, objects: int = 2) -> None:
        """`objects`: how many of them, one in the other, are looked into."""
        if id(value) in self._seen or self._left < 0 or isinstance(value, nn.Module | Tensor):
            return
        self._seen.add(id(value))
        undo = _undo_of(value)
        if undo is not None:
            self._undo.append(undo)
        elif type(value) in _CONTAINERS:
            before: Any = dict(value) if isinstance(value, dict) else list(value)
            self._undo.append(lambda: _refill(value, before))
            self._follow(value.values() if isinstance(value, dict) else value, objects)
        elif type(value) is tuple:
            self._follow(value, objects)
        elif isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            raise NotKeptError(f"a {type(value).__name__} cannot be put back to where it was")
        elif objects and _is_plain(value):
            self._keep_object(value, objects - 1)

    def _keep_object(self, value: Any, objects: int) -> None:
        table = getattr(value, "__dict__", {})
        if type(table) is dict:
            self._follow(self._keep_table(table).values(), objects)
        slots = _in_slots(value)
        for name, entry in slots.items():
            self._undo.append(partial(object.__setattr__, value, name, entry))
        self._follow(slots.values(), objects)

    def _follow(self, values: Any, objects: int) -> None:
        self._left -= len(values)
        if self._left >= 0:
            for value in values:
                self.keep(value, objects)


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _restore_table(table: dict[str, Any], before: dict[str, Any], left: frozenset[str] = frozenset()) -> None:
    """Entries named in `left` are left alone."""
    for name in [name for name in table if name not in before and name not in left]:
        del table[name]
    table.update(before)


def _refill(value: Any, before: Any) -> None:
    if isinstance(value, list):
        value[:] = before
        return
    value.clear()
    if isinstance(value, deque):
        value.extend(before)
    else:
        value.update(before)


_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict, Counter)
"""Not what is derived from them: that may refuse to be refilled."""


def _undo_of(value: Any) -> Callable[[], object] | None:
    """For generators of random numbers, and numpy's arrays."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        python = value.getstate()
        return lambda: value.setstate(python)
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        drawn = bits.state
        return lambda: setattr(bits, "state", drawn)
    if isinstance(value, numpy.random.RandomState):
        old = value.get_state()
        return lambda: value.set_state(old)
    if isinstance(value, numpy.ndarray) and value.size <= MOST_ENTRIES and value.flags.writeable:
        numbers = value.copy()
        return lambda: numpy.copyto(value, numbers)
    return None


_DRIVERS = frozenset({"torch", "lightning", "pytorch_lightning", "lightning_fabric", "wandb"})
"""A module may refer to what drives its training: that is no state of a forward, and other threads may write to it."""


def _is_plain(value: Any) -> bool:
    """Of a class that somebody wrote for the model: no function, file, thread or process group."""
    kind = type(value)
    origin = kind.__module__.partition(".")[0]
    own = origin not in _DRIVERS and origin not in sys.stdlib_module_names
    return (own or kind is SimpleNamespace) and not isinstance(value, type)


def _in_slots(value: Any) -> dict[str, Any]:
    slots = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    names = [name for own in slots for name in ((own,) if isinstance(own, str) else own)]
    return {name: getattr(value, name) for name in names if name[:2] != "__" and hasattr(value, name)}
