"""A curve as one line of block characters."""

from dataclasses import dataclass, field
from math import isfinite, log

BARS = "▁▂▃▄▅▆▇█"
NON_FINITE = "✗"
WIDTH = 60


@dataclass(slots=True)
class _Cell:
    total: float = 0.0
    count: int = 0
    broken: bool = False


@dataclass(slots=True)
class Curve:
    """Mean of the logarithm in each of WIDTH equal parts of the steps from `first` to `last`."""

    first: int
    last: int
    cells: list[_Cell] = field(default_factory=lambda: [_Cell() for _ in range(WIDTH)])
    low: float = float("inf")
    high: float = 0.0
    """Smallest and largest positive number."""

    def place(self, step: int) -> int:
        """The part that a step falls into."""
        share = (step - self.first) / max(self.last - self.first, 1)
        return min(max(int(share * WIDTH), 0), WIDTH - 1)

    def add(self, step: int, value: float) -> None:
        cell = self.cells[self.place(step)]
        if not isfinite(value):
            cell.broken = True
        elif value > 0:
            cell.total += log(value)
            cell.count += 1
            self.low, self.high = min(self.low, value), max(self.high, value)

    def line(self) -> str:
        """The curve; parts without a step repeat the one before, parts with NaN or infinity are marked."""
        levels = [cell.total / cell.count if cell.count else None for cell in self.cells]
        known = [level for level in levels if level is not None]
        if not known:
            return NON_FINITE if any(cell.broken for cell in self.cells) else ""
        low, span = min(known), max(max(known) - min(known), 1e-9)
        text, held = "", " "
        for cell, level in zip(self.cells, levels, strict=True):
            if level is not None:
                flat = span < 0.01
                held = BARS[0] if flat else BARS[min(int((level - low) / span * len(BARS)), len(BARS) - 1)]
            elif cell.broken:
                held = NON_FINITE
            text += NON_FINITE if cell.broken else held
        return text
