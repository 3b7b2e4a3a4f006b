"""Curves that several experiments draw."""

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.outcome import SMOOTHED_STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_losses(axes: "Axes", results: Results, title: str = "training loss of every run") -> None:
    """A faint line a run, a strong one for each arm's median; a run that ends early or is not finite stops there."""
    for number, (name, found) in enumerate(results.items()):
        colour = f"C{number % 10}"
        curves = [outcome.smoothed for outcome in found]
        for curve in curves:
            steps = range(SMOOTHED_STEPS, SMOOTHED_STEPS + len(curve))
            axes.plot(steps, curve, color=colour, alpha=0.25, linewidth=0.8)
        middle = medians(curves)
        axes.plot(
            range(SMOOTHED_STEPS, SMOOTHED_STEPS + len(middle)), middle, color=colour, linewidth=2, label=name
        )
    axes.set(title=title, xlabel="step", ylabel=f"nats a token, mean of {SMOOTHED_STEPS} steps")
    axes.legend(fontsize="small")


def medians(curves: Sequence[Sequence[float]]) -> list[float]:
    """Step by step, over the curves that are still finite there."""
    longest = max((len(curve) for curve in curves), default=0)
    found = []
    for step in range(longest):
        values = [curve[step] for curve in curves if step < len(curve) and math.isfinite(curve[step])]
        found.append(statistics.median(values) if values else math.nan)
    return found
