"""Layers x kinds as coloured cells: how far each lies from the median of its column."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TEXT = 100
"""Layers up to which the cells carry their numbers."""
_MOST_BELOW = 16
"""Layers up to which the maps stand one below the other."""


def draw_heat_maps(
    grids: Mapping[str, tuple[Mapping[tuple[int | None, str], float], float]],
    layers: Sequence[int | None],
    kinds: Sequence[str],
    outside: str,
    path: Path,
) -> None:
    """A map a grid; each comes with the factor from the median at which the colours end."""
    from matplotlib.figure import Figure

    width, height = 1.6 + 0.72 * len(kinds), min(40.0, 1.7 + 0.3 * len(layers))
    # Flat maps one below the other, tall ones side by side.
    across, down = (1, len(grids)) if len(layers) <= _MOST_BELOW else (len(grids), 1)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for place, (title, (grid, off_by)) in zip(axes, grids.items(), strict=True):
        own = [kind for kind in kinds if any(key[1] == kind for key in grid)]
        _draw(place, grid, layers, own, outside, off_by)
        place.set_title(f"{title}; colours: times the column's median")
    figure.savefig(path, dpi=110)


def relative(
    grid: Mapping[tuple[int | None, str], float], layers: Sequence[int | None], kinds: Sequence[str]
) -> list[list[float]]:
    """log2 of each cell over the median of its kind over the layers; NaN where there is none, 0 outside the layers."""
    rows = []
    for layer in layers:
        row = []
        for kind in kinds:
            value = grid.get((layer, kind), math.nan)
            others = [
                other
                for (at, which), other in grid.items()
                if which == kind and at is not None and math.isfinite(other) and other > 0
            ]
            known = math.isfinite(value) and value > 0
            if layer is None:
                row.append(0.0 if known else math.nan)
            else:
                row.append(math.log2(value / statistics.median(others)) if known and others else math.nan)
        rows.append(row)
    return rows


def _draw(
    axes: "Axes",
    grid: Mapping[tuple[int | None, str], float],
    layers: Sequence[int | None],
    kinds: Sequence[str],
    outside: str,
    off_by: float,
) -> None:
    from matplotlib import colormaps

    # White also where there is nothing, and where the number is none: that is written there, in red.
    colours = colormaps["RdBu_r"].with_extremes(bad="white")
    end = math.log2(off_by)
    times = relative(grid, layers, kinds)
    image = axes.imshow(times, cmap=colours, vmin=-end, vmax=end, aspect="auto")
    axes.set_xticks(range(len(kinds)), kinds, rotation=40, ha="right", fontsize=8)
    shown = range(0, len(layers), max(1, len(layers) // _MOST_TEXT))
    names = [outside if layers[at] is None else str(layers[at]) for at in shown]
    axes.set_yticks(list(shown), names, fontsize=8)
    axes.set_ylabel("layer")
    for (layer, kind), value in grid.items():
        if kind in kinds and (len(layers) <= _MOST_TEXT or not math.isfinite(value)):
            row, column = layers.index(layer), kinds.index(kind)
            _write(axes, column, row, value, dark=abs(times[row][column]) > 0.7 * end)
    bar = axes.figure.colorbar(image, ax=axes, extend="both", fraction=0.05, pad=0.02)
    ticks = (1 / off_by, 1 / math.sqrt(off_by), 1.0, math.sqrt(off_by), off_by)
    bar.set_ticks([math.log2(tick) for tick in ticks], labels=[f"{tick:.2g}" for tick in ticks])


def _write(axes: "Axes", column: int, row: int, value: float, *, dark: bool) -> None:
    """The number in its cell, white on a `dark` one; in red what is none."""
    finite = math.isfinite(value)
    axes.text(
        column,
        row,
        f"{value:.2g}" if finite else "NaN",
        ha="center",
        va="center",
        fontsize=6.5,
        color="red" if not finite else "white" if dark else "black",
        weight="normal" if finite else "bold",
    )
