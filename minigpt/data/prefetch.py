"""What is read ahead in the background, and can be waited for without being at its mercy."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1
# A thread that hangs in a read of a dead disk never ends: who leaves does not wait for it.
_GRACE_SECONDS = 2.0


class Prefetcher(Generic[T]):
    """A daemon thread that keeps a few items of an iterator ready, or what went wrong."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._ready: queue.Queue[T | _End] = queue.Queue(maxsize=max(1, depth))
        self._next: T | _End | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), name="batches", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether `take` would answer at once, within so many seconds."""
        if self._next is None:
            try:
                self._next = self._ready.get(timeout=seconds)
            except queue.Empty:
                return False
        return True

    @property
    def failure(self) -> BaseException | None:
        """What `take` would raise, where the answer is there and is that."""
        return self._next.error if isinstance(self._next, _End) else None

    def take(self) -> T:
        """The next item, waited for; raises what went wrong in the background, or StopIteration."""
        item = self._ready.get() if self._next is None else self._next
        if isinstance(item, _End):
            self._next = item
            raise item.error or StopIteration
        self._next = None
        return item

    def close(self) -> None:
        """Ends the thread; one that hangs is left behind, and ends by itself should it ever come back."""
        self._closing.set()
        self._thread.join(_GRACE_SECONDS)

    def _run(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._closing.is_set():
                    return
            self._put(_End(None))
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: "T | _End") -> None:
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue


class _End:
    """After the last item: nothing, or what went wrong."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
