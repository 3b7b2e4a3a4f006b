"""Quantiles of a stream of positive numbers in bounded memory."""

from collections import Counter
from math import exp, isfinite, log

BIN = 0.001
"""Width of a bin in natural log: quantiles are within 0.05 %."""


class LogHistogram:
    """Counts by the logarithm; what is no positive number is left out."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self.count = 0

    def add(self, value: float) -> None:
        if isfinite(value) and value > 0:
            self._bins[round(log(value) / BIN)] += 1
            self.count += 1

    def quantile(self, fraction: float) -> float | None:
        """The value below which `fraction` of the numbers lie; None without any."""
        wanted = fraction * (self.count - 1) + 1
        seen = 0
        for place in sorted(self._bins):
            seen += self._bins[place]
            if seen >= wanted - 1e-9:
                return exp(place * BIN)
        return None
