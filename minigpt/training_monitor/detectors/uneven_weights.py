"""First weights of one layer that are on another scale than those of its like."""

from math import exp, isfinite, log, sqrt

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.matrix_ratios import matrices
from minigpt.training_monitor.detectors.siblings import families, odd_ones
from minigpt.training_monitor.finding import Evidence
from minigpt.training_monitor.parameter_signals import ParameterSignals

LARGE = 2.0
"""Root mean square times sqrt(fan-in) beyond which weights amplify what they get: of two layers that differ the larger
is odd then, else the smaller."""


def uneven_weights(parameters: ParameterSignals | None, least_ratio: float) -> Evidence | None:
    """Evidence about the matrices that are at least so many times larger or smaller than the same ones of the other
    layers; None where all are alike.

    Matrices of zeros are left out (an output that begins at zero). So is the last of a chain that has one matrix a
    layer, if it is small: policy heads begin near zero.
    """
    if parameters is None or parameters.weight_norms is None:
        return None
    facts, norms = parameters.facts, parameters.weight_norms
    sound = [(i, name) for i, name in matrices(facts) if norms[i] > 0.0 and isfinite(norms[i])]
    odd: dict[int, tuple[float, float]] = {}
    for members in families(facts, sound):
        sizes = [log(norms[i]) - 0.5 * log(facts.sizes[i]) for i in members]
        places, gap = odd_ones(sizes, log(least_ratio))
        if len(members) == 2 and places:
            places, gap = _of_two(sizes, facts.sizes[members[0]], gap)
        rest = [size for place, size in enumerate(sizes) if place not in places]
        chain = sum(facts.groups[i] == facts.groups[members[-1]] for i, _ in sound) == 1
        for place in places:
            if not (gap < 0 and chain and members[place] == members[-1]):
                odd[members[place]] = (exp(sizes[place]), exp(median(rest)))
    if not odd:
        return None
    worst = max(odd, key=lambda i: abs(log(odd[i][0] / odd[i][1])))
    rms, normal = odd[worst]
    return {
        "trigger": "uneven",
        "parameter": facts.names[worst],
        "group": facts.groups[worst],
        "value": rms,
        "normal": normal,
        "ratio": rms / normal,
        "count": len(odd),
        "of": len(sound),
    }


def _of_two(sizes: list[float], elements: int, gap: float) -> tuple[list[int], float]:
    """Which of two matrices is the odd one: there is no majority to tell."""
    larger = sizes.index(max(sizes))
    amplifies = exp(sizes[larger]) * sqrt(sqrt(elements)) > LARGE
    return ([larger], abs(gap)) if amplifies else ([1 - larger], -abs(gap))
