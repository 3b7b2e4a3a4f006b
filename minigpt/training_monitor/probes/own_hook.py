"""The monitor's own hooks on a model, told from everybody else's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class OwnHook:
    """A hook of the monitor's. A copy of the model, by deepcopy or pickle, is not watched."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _Unwatched, ()


class _Unwatched:
    """What the hooks are in a copied model."""

    def __call__(self, *call: object) -> None:
        """Nothing."""


@contextmanager
def without_own_hooks(model: nn.Module) -> Iterator[None]:
    """The monitor does not hear the forwards of this block; all hooks end in the order in which they began."""
    tables: list[dict[int, Any]] = [
        table for module in model.modules() for table in (module._forward_pre_hooks, module._forward_hooks)
    ]
    kept = [(table, list(table.items())) for table in tables]
    try:
        for table, hooks in kept:
            for key in [key for key, hook in hooks if isinstance(hook, OwnHook)]:
                del table[key]
        yield
    finally:
        for table, hooks in kept:
            table.clear()
            table.update(hooks)
