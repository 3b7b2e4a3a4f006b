"""The same matrix in the other layers: what one is compared with before it has a history of its own."""

from collections.abc import Sequence
from itertools import pairwise

from minigpt.training_monitor.detectors.absence import kind
from minigpt.training_monitor.parameter_signals import ParameterFacts


def families(facts: ParameterFacts, matrices: Sequence[tuple[int, str]]) -> list[list[int]]:
    """Indices of the matrices that are alike by name and size, at least two, in model order."""
    found: dict[tuple[str, int], list[int]] = {}
    for index, name in matrices:
        if kind(name) != name:
            found.setdefault((kind(name), facts.sizes[index]), []).append(index)
    return [members for members in found.values() if len(members) > 1]


def odd_ones(logs: Sequence[float], least: float) -> tuple[list[int], float]:
    """Places of the values that a gap of at least `least` parts from most of the others, and the log of how far their
    nearest lies from those; ([], 0) if there is no such gap. At a tie the upper half is odd.

    It is a gap between neighbours in size that counts: scales that go gradually with depth (Mitchell initialisation,
    layer-wise rates) show none.
    """
    order = sorted(range(len(logs)), key=logs.__getitem__)
    gaps = [logs[above] - logs[below] for below, above in pairwise(order)]
    widest = max(gaps, default=0.0)
    if widest < least:
        return [], 0.0
    cut = gaps.index(widest) + 1
    below, above = order[:cut], order[cut:]
    return (below, -widest) if len(below) < len(above) else (above, widest)
