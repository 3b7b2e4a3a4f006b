"""`lab layers`: weight and gradient norms of a checkpoint by layer and kind of matrix, as tables and heat maps."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.atomic import write_text_atomically
from minigpt.errors import MiniGPTError, on_one_line
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.layers.gradients import WINDOWS, gradient_norms
from minigpt.lab.layers.heatmap import draw_heat_maps
from minigpt.lab.layers.measure import TensorStats, measured, pooled_grad, pooled_rms
from minigpt.lab.layers.names import kind_order
from minigpt.lab.layers.odd import GRADIENT_OFF_BY, OFF_BY, odd_layers
from minigpt.lab.layers.read import read_weights
from minigpt.lab.where import where

OUTSIDE = "outside"
"""The row of what belongs to no layer: embedding, last norm, head."""
Grid = Mapping[tuple[int | None, str], float]
"""A number by layer (None: outside) and kind."""


@dataclass(frozen=True)
class LayersReport:
    """All weights of a checkpoint in numbers, and what is odd about them."""

    path: Path
    step: int | None
    """None: no checkpoint of MiniGPT."""
    tensors: tuple[TensorStats, ...]
    notes: tuple[str, ...]
    """What was passed over or could not be had, a line each."""
    where: str
    """Hardware, software and day."""
    command: str

    @property
    def odd(self) -> list[str]:
        """A line for each oddity."""
        return odd_layers(self.tensors)

    @property
    def has_gradients(self) -> bool:
        return any(one.grad_norm is not None for one in self.tensors)

    @property
    def layers(self) -> list[int | None]:
        """Of the grids' rows, in order; None last."""
        found = {one.place.layer for one in self.tensors}
        return [*sorted(layer for layer in found if layer is not None), *([None] if None in found else [])]

    @property
    def kinds(self) -> list[str]:
        """Of the grids' columns, in a forward pass's order."""
        return sorted({one.place.kind for one in self.tensors}, key=kind_order)

    @property
    def rms_grid(self) -> Grid:
        """RMS of the weights; NaN where one is not finite."""
        return {place: pooled_rms(found) for place, found in self._placed().items()}

    @property
    def grad_grid(self) -> Grid:
        """Gradient norms, where they were measured."""
        norms = {place: pooled_grad(found) for place, found in self._placed().items()}
        return {place: norm for place, norm in norms.items() if norm is not None}

    def _placed(self) -> dict[tuple[int | None, str], list[TensorStats]]:
        found: dict[tuple[int | None, str], list[TensorStats]] = {}
        for one in self.tensors:
            found.setdefault((one.place.layer, one.place.kind), []).append(one)
        return found

    def markdown(self) -> str:
        """Oddities first, then the grids; every tensor's numbers are in `table`."""
        step = "" if self.step is None else f", step {self.step:,}"
        count = sum(one.count for one in self.tensors)
        head = f"# lab layers: {on_one_line(str(self.path))}{step}"
        lines = [head, "", f"{len(self.tensors)} tensors, {count:,} weights.", *self.notes, ""]
        odd = self.odd
        lines += [f"{len(odd)} odd:" if odd else "Nothing odd.", ""]
        lines += [*[f"- {on_one_line(line)}" for line in odd], *[""] * bool(odd)]
        lines += [self._grid_table(self.rms_grid, "RMS of the weights").markdown(), ""]
        if self.has_gradients:
            lines += [self._grid_table(self.grad_grid, "Norm of the gradient").markdown(), ""]
        lines += [
            f"Odd: not finite, all zeros, an RMS {OFF_BY:g} times above or below the median of its kind over the "
            f"layers, a gradient norm {GRADIENT_OFF_BY:g} times.",
            "",
        ]
        return "\n".join([*lines, f"By `{self.command}`. {self.where}."])

    def _grid_table(self, grid: Grid, title: str) -> Table:
        kinds = [kind for kind in self.kinds if any(place[1] == kind for place in grid)]
        rows: list[list[Cell]] = []
        for layer in self.layers:
            name = OUTSIDE if layer is None else layer
            rows.append([name, *[grid.get((layer, kind)) for kind in kinds]])
        return columns_of(("layer", *kinds), rows, title, form=".3g")

    @property
    def table(self) -> Table:
        """A row a tensor."""
        head = (
            "name", "layer", "kind", "shape", "norm", "rms", "largest", "zeros", "not finite", "gradient norm",
        )  # fmt: skip
        rows = [
            [
                on_one_line(one.name),
                one.place.layer,
                one.place.kind,
                " x ".join(map(str, one.shape)),
                one.norm,
                one.rms,
                one.largest,
                one.zeros,
                one.non_finite,
                one.grad_norm,
            ]
            for one in self.tensors
        ]
        return columns_of(head, rows, "Every tensor", form=".4g")

    def save(self, folder: Path, *, with_plot: bool = True) -> None:
        """report.md, table.csv, results.json and heatmap.png in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / "report.md", self.markdown() + "\n")
        write_text_atomically(folder / "table.csv", self.table.csv())
        found: dict[str, Any] = {
            "experiment": "layers",
            "command": self.command,
            "checkpoint": str(self.path),
            "step": self.step,
            "where": self.where,
            "notes": list(self.notes),
            "odd": self.odd,
            "tables": [self.table.plain()],
        }
        write_text_atomically(folder / "results.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        if with_plot:
            grids = {"RMS of the weights": (self.rms_grid, OFF_BY)}
            if self.has_gradients:
                grids["norm of the gradient"] = (self.grad_grid, GRADIENT_OFF_BY)
            draw_heat_maps(grids, self.layers, self.kinds, OUTSIDE, folder / "heatmap.png")


def layers_report(
    path: Path,
    *,
    gradients: bool,
    device: torch.device,
    command: str = "minigpt lab layers",
    progress: Callable[[str], None] = lambda line: None,
) -> LayersReport:
    """The report on a checkpoint file, a run folder's newest good checkpoint, or somebody's .pt or .safetensors.

    With `gradients` one batch of the run's own validation text is sent through a MiniGPT checkpoint; where that cannot
    be, a note says why. `command` is what the report says it is from.

    Raises:
        MiniGPTError: there are no weights, or they cannot be read safely.
    """
    weights = read_weights(path)
    notes, norms = list(weights.notes), dict[str, float]()
    if gradients and weights.step is None:
        notes.append("Gradients: none, since this is no checkpoint of MiniGPT: only its weights are known.")
    elif gradients:
        progress(f"one batch of {WINDOWS} validation windows forward and backward")
        try:
            found, loss = gradient_norms(weights.path, device)
            norms |= found
            said = f"{loss:.3f} nats a token" if math.isfinite(loss) else "not finite"
            notes.append(
                f"Gradients: of {WINDOWS} windows all over the validation text, whose mean loss is {said}."
            )
        except MiniGPTError as error:
            notes.append(f"Gradients: none, because {on_one_line(str(error))}.")
    stats = _stats(weights.tensors, norms)
    return LayersReport(weights.path, weights.step, tuple(stats), tuple(notes), where(device), command)


def _stats(tensors: Mapping[str, torch.Tensor], norms: Mapping[str, float]) -> Sequence[TensorStats]:
    return [measured(name, tensor, norms.get(name)) for name, tensor in tensors.items()]
