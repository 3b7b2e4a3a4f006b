"""Repeated measurements, and how they are told: the median, and between what they lay."""

import statistics
import time
from collections.abc import Callable, Sequence


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds that `work` takes once."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def taking_turns(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; who begins changes every round, so that drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(seconds_of(contenders[name]))
    return seconds


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`median (lowest to highest)`."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
