"""Gradient norms of the whole model and of each layer, on the device and without a host sync."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.training_monitor.groups import parameter_groups_by_layer


@dataclass(frozen=True, slots=True)
class PackedNorms:
    """Total and group norms in one fp32 vector on the gradients' device."""

    vector: Tensor
    """[total, then one a group]: one copy brings all of it to the host."""
    group_names: tuple[str, ...]

    @property
    def total(self) -> Tensor:
        """Global L2 norm, 0-dim, for clipping and for the guard."""
        return self.vector[0]

    def read(self, values: Sequence[float]) -> tuple[float, dict[str, float]]:
        """(grad_norm, group_norms) from the vector's values, e.g. `packed.read(packed.vector.tolist())`."""
        return values[0], dict(zip(self.group_names, values[1:], strict=True))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each gradient's norm goes, for one set of parameters that have gradients."""

    group_names: tuple[str, ...]
    members: Tensor
    """(groups, widest group) indices into the squared norms; the index past the last is a zero."""


class GradientNorms:
    """Measure before clipping and after unscaling: clipping with one NaN makes all NaN and hides the culprit.

    Parameters without a gradient (frozen, or unused this step) take no part; groups without any are left out.
    All gradients must be on one device. Sums are by gather, not by atomics, so results are reproducible.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        named = list(named_parameters)
        self._parameters = [parameter for _, parameter in named]
        groups = parameter_groups_by_layer(name for name, _ in named)
        self._groups = [groups[name] for name, _ in named]
        self._layouts: dict[tuple[int, ...], _Layout] = {}

    @torch.no_grad()
    def measure(self) -> PackedNorms:
        """Norms of the gradients that are there now."""
        present = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        if not present:
            device = self._parameters[0].device if self._parameters else torch.device("cpu")
            return PackedNorms(torch.zeros(1, device=device), ())
        gradients = [_dense(self._parameters[i].grad) for i in present]
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients, 2, torch.float32)])
        layout = self._layouts.get(tuple(present)) or self._lay_out(present, norms.device)
        squares = torch.cat([norms.square(), norms.new_zeros(1)])
        sums = squares[layout.members].sum(dim=1)
        vector = torch.cat([squares.sum().unsqueeze(0), sums]).sqrt()
        return PackedNorms(vector, layout.group_names)

    def _lay_out(self, present: list[int], device: torch.device) -> _Layout:
        members: dict[str, list[int]] = {}
        for row, index in enumerate(present):
            members.setdefault(self._groups[index], []).append(row)
        widest = max(map(len, members.values()))
        rows = [row + [len(present)] * (widest - len(row)) for row in members.values()]
        layout = _Layout(tuple(members), torch.tensor(rows).to(device, non_blocking=True))
        self._layouts[tuple(present)] = layout
        return layout


def _dense(gradient: Tensor | None) -> Tensor:
    """The values of a gradient; a sparse one is summed over its duplicates first."""
    assert gradient is not None
    return gradient.coalesce().values() if gradient.is_sparse else gradient
