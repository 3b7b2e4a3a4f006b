"""What few seeds say: means with 95 % intervals, shares with theirs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""Student's t at .975 for 1, 2, ... degrees of freedom; any table has them."""
_Z_975 = 1.96


@dataclass(frozen=True)
class Mean:
    """A mean, and how far the true one may lie from it (95 %, Student's t); None with fewer than two values."""

    value: float
    half_width: float | None
    count: int

    @property
    def low(self) -> float:
        return self.value - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        return self.value + (self.half_width or 0.0)

    def text(self, form: str = ".3f") -> str:
        if not math.isfinite(self.value):
            return "not finite"
        around = "" if self.half_width is None else f" ± {self.half_width:{form}}"
        return f"{self.value:{form}}{around}"


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of independent values; NaN where there is none, or one is NaN."""
    if not values:
        return Mean(math.nan, None, 0)
    value, count = statistics.fmean(values), len(values)
    if count < 2 or not math.isfinite(value):
        return Mean(value, None, count)
    freedom = count - 1
    t = _T_975[freedom - 1] if freedom <= len(_T_975) else _Z_975 + 2.5 / freedom
    return Mean(value, t * statistics.stdev(values) / math.sqrt(count), count)


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios, and the 95 % interval of the true one (Student's t over the logs).

    NaN where there is nothing to compare; with a single ratio `low` and `high` are that one.
    """

    value: float
    low: float
    high: float
    count: int
    at_least: bool = False
    """Whether it is only a bound: the larger number was not waited for."""

    @property
    def is_larger(self) -> bool:
        """Whether the first numbers are larger by more than chance, which takes two ratios to tell."""
        return self.count > 1 and self.low > 1

    @property
    def is_smaller(self) -> bool:
        """Whether they are smaller by more than chance."""
        return self.count > 1 and self.high < 1

    def text(self) -> str:
        if not math.isfinite(self.value):
            return "-"
        around = f" ({self.low:.3g} to {self.high:.3g})" if self.count > 1 else ""
        return f"{'at least ' if self.at_least else ''}{self.value:.3g}{around}"


@dataclass(frozen=True)
class Share:
    """So many of so many, with the 95 % interval of the true share (Wilson 1927)."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        share, z2 = self.count / self.of, _Z_975**2
        middle = (share + z2 / (2 * self.of)) / (1 + z2 / self.of)
        width = _Z_975 / (1 + z2 / self.of) * math.sqrt(share * (1 - share) / self.of + z2 / (4 * self.of**2))
        return max(0.0, middle - width), min(1.0, middle + width)

    def text(self) -> str:
        low, high = self.interval
        return f"{self.count}/{self.of} ({100 * low:.0f}-{100 * high:.0f} %)"
