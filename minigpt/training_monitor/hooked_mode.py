"""What looks into a forward has in common: torch's functions pass through it, and modules call its hooks."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle


class HookedMode(TorchFunctionMode):
    """A mode that has hooks on a model while it is entered, and leaves none behind."""

    def __init__(self) -> None:
        super().__init__()
        self._handles: list[RemovableHandle] = []

    def _hook(self) -> Iterator[RemovableHandle]:
        """Registers the hooks, one after the other."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Lets go of what a forward that broke off has left."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._handles.extend(self._hook())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._leave()
