"""A checkpoint's pickle read with stand-ins for its tensors: nothing is allocated, and only plain data is made."""

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

_STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
    "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
"""Bytes of an element."""
_MOST_DIMENSIONS = 8
_LARGEST_INT_KEY = 1 << 40
_OPCODES = (
    pickle.PROTO + pickle.STOP + pickle.MARK + pickle.GLOBAL + pickle.REDUCE + pickle.BUILD + pickle.BINPERSID
    + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE + pickle.BININT + pickle.BININT1 + pickle.BININT2
    + pickle.LONG1 + pickle.BINFLOAT + pickle.BINUNICODE + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS
    + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1
    + pickle.TUPLE2 + pickle.TUPLE3 + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET
)  # fmt: skip
"""Those that torch.save writes for plain data and tensors."""


UNSAFE = "it holds more than plain data and tensors"


class UnfitError(Exception):
    """What an archive holds that MiniGPT never writes."""


@dataclass(frozen=True)
class _Storage:
    """Stands for a storage: how many elements its record holds."""

    count: int


@dataclass(frozen=True)
class _StorageType:
    element_bytes: int


class TensorStandIn:
    """Stands for a tensor that lies within its storage."""


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any
) -> TensorStandIn:
    """The stand-in of a tensor whose every element has a place of its own in the storage."""
    shape = [size, stride] if type(size) is tuple and type(stride) is tuple else []
    if (
        type(storage) is not _Storage
        or type(requires_grad) is not bool
        or hooks != OrderedDict()
        or not shape
    ):
        raise UnfitError(UNSAFE)
    lengths, steps = shape
    if len(lengths) != len(steps) or len(lengths) > _MOST_DIMENSIONS:
        raise UnfitError("a tensor in it has a size that cannot be")
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in (offset, *lengths, *steps)):
        raise UnfitError("a tensor in it has a size that cannot be")
    elements, last = prod(lengths), offset
    for length, step in zip(lengths, steps, strict=True):
        last += (length - 1) * step
    if elements and (elements > storage.count or last >= storage.count):
        raise UnfitError("a tensor in it is larger than what it holds of it")
    return TensorStandIn()


class DryUnpickler(pickle._Unpickler):
    """Reads a checkpoint's pickle with stand-ins for tensors and storages.

    The one written in Python: the other reserves memory for whatever number the file gives to an entry of its memo.
    """

    def __init__(self, file: io.BytesIO, sizes: dict[str, int]) -> None:
        super().__init__(file)
        self._sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise UnfitError(f"{UNSAFE} ({f'{module}.{name}'[:80]!r})")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, location, count = pid
        if kind != "storage" or type(storage_type) is not _StorageType or type(location) is not str:
            raise UnfitError(UNSAFE)
        held = self._sizes.get(f"data/{key}") if type(key) is str else None
        if type(count) is not int or held != count * storage_type.element_bytes:
            raise UnfitError("a tensor in it is larger or smaller than its record")
        return _Storage(count)

    def _set_items(self) -> None:
        self._put(self.pop_mark())  # type: ignore[attr-defined]

    def _set_item(self) -> None:
        stack = self.stack  # type: ignore[attr-defined]
        value, key = stack.pop(), stack.pop()
        self._put([key, value])

    def _put(self, items: list[Any]) -> None:
        """Keys are words or counts: others can be made so that all of them collide."""
        target, keys = self.stack[-1], items[::2]  # type: ignore[attr-defined]
        if type(target) not in (dict, OrderedDict) or not all(
            type(key) is str or (type(key) is int and 0 <= key < _LARGEST_INT_KEY) for key in keys
        ):
            raise UnfitError(UNSAFE)
        target.update(zip(keys, items[1::2], strict=True))

    def _build(self) -> None:
        """A module's state_dict carries the versions of its parts as an attribute, and nothing else has any."""
        stack = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        if type(stack[-1]) is not OrderedDict or type(state) is not dict or state.keys() != {"_metadata"}:
            raise UnfitError(UNSAFE)

    dispatch: ClassVar[dict[int, Any]] = {
        **{code: read for code, read in pickle._Unpickler.dispatch.items() if code in _OPCODES},
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.BUILD[0]: _build,
    }
