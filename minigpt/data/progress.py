"""How far a long pass over the corpus has come, and whether somebody wants it to stop."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from minigpt.errors import MiniGPTError

ShouldStop = Callable[[], bool]
Tick = Callable[[int], None]
"""Called with the bytes just done, often; raises PreparationStoppedError when asked to stop."""

_SHOWN_AFTER_SECONDS = 0.5


class PreparationStoppedError(MiniGPTError):
    """The preparation was asked to stop; nothing half-made was left behind."""

    def __init__(self) -> None:
        super().__init__("preparing the corpus was stopped on request; nothing half-made was kept")


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True)
class Watch:
    """Watches over the passes: a bar with MB/s on a terminal, silence elsewhere."""

    should_stop: ShouldStop
    shown: bool

    @contextmanager
    def over(self, what: str, total_bytes: int | None) -> Iterator[Tick]:
        """The tick of one pass over the corpus."""
        with tqdm(
            desc=what,
            total=total_bytes,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            delay=_SHOWN_AFTER_SECONDS,
            disable=not (self.shown and sys.stderr.isatty()),
        ) as bar:

            def tick(done_bytes: int) -> None:
                bar.update(done_bytes)
                if self.should_stop():
                    raise PreparationStoppedError

            yield tick
