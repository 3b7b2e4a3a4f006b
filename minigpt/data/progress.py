"""How far tokenizing has come: a bar on a terminal, nothing elsewhere."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """A bar over the corpus's bytes with MB/s, shown only when asked for and on a terminal."""

    def __init__(self, total_bytes: int | None, *, shown: bool) -> None:
        self._bar = tqdm(
            desc="tokenizing",
            total=total_bytes,
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            disable=not (shown and sys.stderr.isatty()),
        )

    def advance(self, text_bytes: int) -> None:
        """Counts bytes of text as done."""
        self._bar.update(text_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
