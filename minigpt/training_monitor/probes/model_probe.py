"""One measurement a step of a model in training, between backward (and unscaling) and clipping."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from operator import mul, truediv
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.probes.norms import Norms, l2_norms, real_values
from minigpt.training_monitor.probes.optimizer_steps import OptimizerSteps
from minigpt.training_monitor.probes.parameter_table import ParameterTable
from minigpt.training_monitor.probes.sample import WeightSample, zero_fractions

ELEMENTS_EVERY = 16
"""Steps between looks at single elements: gradients that are exactly zero (more often where a GradScaler makes them
likely), and weights that did not move."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A measurement as numbers on the host."""

    grad_norm: float
    group_norms: dict[str, float]
    weight_norms: dict[str, float]
    update_ratios: dict[str, float]
    optimizer_steps: float | None
    parameters: ParameterSignals


@dataclass(frozen=True, slots=True)
class Measurement:
    """A step's numbers in one fp32 vector on the model's device."""

    vector: Tensor
    """[total, gradient norms, then whatever else was measured]: one copy brings all of it to the host."""
    facts: ParameterFacts
    members: Sequence[tuple[str, Sequence[int]]]
    present: Sequence[int]
    """Indices of the parameters that have a gradient."""
    scales: Sequence[float] | None
    """From the norm of a sampled change to that of the whole; None: there is nothing to compare with."""
    weights: bool
    zeros: bool
    looked_at: Sequence[int] | None
    """Weights of each parameter that were looked at for having moved; None: it was not looked."""
    counted: int
    """Optimizer counts at the vector's end."""
    count: float | None
    """The lowest count that was on the host already."""

    @property
    def total(self) -> Tensor:
        """Global L2 norm of the gradients, 0-dim, for clipping and for the guard."""
        return self.vector[0]

    def read(self, values: Sequence[float], grad_scale: float = 1.0) -> Reading:
        """The numbers from `vector.tolist()`; gradients that were still scaled are divided by `grad_scale`."""
        present, every, at = len(self.present), len(self.facts), 1
        gradients: Sequence[float] = values[at : at + present]
        if grad_scale != 1.0:
            gradients = [norm / grad_scale for norm in gradients]
        grads, at = _scattered(self.present, every, gradients), at + present
        weights = updates = zeros = moved = None
        if self.weights:
            weights, at = values[at : at + every], at + every
        if self.scales is not None:
            updates, at = list(map(mul, self.scales, values[at : at + every])), at + every
        if self.zeros:
            zeros, at = _scattered(self.present, every, values[at : at + present]), at + present
        if self.looked_at is not None:
            moved, at = list(map(truediv, values[at : at + every], self.looked_at)), at + every
        counts = list(values[at : at + self.counted])
        if self.count is not None:
            counts.append(self.count)
        weight_norms = {} if weights is None else self._by_group(weights)
        update_norms = {} if updates is None else self._by_group(updates)
        return Reading(
            grad_norm=values[0] / grad_scale,
            group_norms=self._by_group(grads) if present == every else self._by_group_present(grads),
            weight_norms=weight_norms,
            update_ratios={
                name: update / weight_norms[name]
                for name, update in update_norms.items()
                if weight_norms.get(name)
            },
            optimizer_steps=min(counts, default=None),
            parameters=ParameterSignals(self.facts, grads, weights, updates, zeros, moved),
        )

    def _by_group(self, norms: Sequence[Any]) -> dict[str, float]:
        return {name: hypot(*_at(norms, indices)) for name, indices in self.members}

    def _by_group_present(self, norms: Sequence[float | None]) -> dict[str, float]:
        """The same where some are missing."""
        found = ((name, [norms[i] for i in indices]) for name, indices in self.members)
        present = ((name, [norm for norm in own if norm is not None]) for name, own in found)
        return {name: hypot(*own) for name, own in present if own}


def _at(values: Sequence[float], places: Sequence[int]) -> Sequence[float]:
    if isinstance(places, range):
        return values[places.start : places.stop]
    return [values[place] for place in places]


def _scattered(places: Sequence[int], size: int, values: Sequence[float]) -> Sequence[float | None]:
    if len(places) == size:
        return values
    row: list[float | None] = [None] * size
    for place, value in zip(places, values, strict=True):
        row[place] = value
    return row


class ModelProbe:
    """Measures gradients, weights and the last update of a model; reads only, and never waits for a device.

    Sums are deterministic: measuring the same state twice gives the same bits. Of a DTensor this rank's shard is
    measured.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[tuple[str, nn.Parameter]],
        optimizers: Sequence[Optimizer] = (),
        *,
        weights_every: int = 1,
    ) -> None:
        self._table = ParameterTable(model, optimizers)
        self._optimizer_steps = OptimizerSteps(optimizers)
        self._weights_every = weights_every
        self._measured = 0
        self._look_at_weights()
        self._before: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where measurements lie."""
        return self._table.home

    @torch.no_grad()
    def measure(self, *, count_zeros: bool = False) -> Measurement:
        """The state of now; call it once a step. `count_zeros`: look for zero gradients out of turn."""
        self._follow()
        table, home = self._table, self._table.home
        # A gradient that was there when its parameter was frozen is nobody's any more.
        gradients = [parameter.grad if parameter.requires_grad else None for parameter in table.parameters]
        present: Sequence[int] = range(len(gradients))
        if any(gradient is None for gradient in gradients):
            present = [index for index, gradient in enumerate(gradients) if gradient is not None]
        values = [real_values(gradient) for gradient in gradients if gradient is not None]
        norms = l2_norms(values, home)
        parts = [torch.linalg.vector_norm(norms).reshape(1), norms]
        weights = self._measured % self._weights_every == 0
        if weights:
            parts.append(self._weight_norms.take())
        sample, before = self._sample.take(), self._before
        if before is not None:
            parts.append(torch.linalg.vector_norm(sample - before, dim=1).float())
        due = self._measured % ELEMENTS_EVERY == 0
        zeros = count_zeros or due
        if zeros:
            parts.append(zero_fractions(values, home))
        moved = due and before is not None
        if before is not None and moved:
            parts.append((sample != before).sum(dim=1).float())
        counts = self._optimizer_steps.counts()
        device_counts = [count.to(home, non_blocking=True) for count in counts if isinstance(count, Tensor)]
        parts += [count.reshape(1).float() for count in device_counts]
        self._before = sample
        self._measured += 1
        return Measurement(
            vector=torch.cat(parts),
            facts=table.facts,
            members=table.members,
            present=present,
            scales=None if before is None else self._sample.scales,
            weights=weights,
            zeros=zeros,
            looked_at=self._sample.looked_at if moved else None,
            counted=len(device_counts),
            count=min((count for count in counts if not isinstance(count, Tensor)), default=None),
        )

    def _follow(self) -> None:
        """Keep up with parameters that were added, exchanged or moved; compare nothing across that."""
        seen = self._table.tensors
        if self._table.refresh():
            self._before = None
        if self._table.tensors is not seen:
            self._look_at_weights()

    def _look_at_weights(self) -> None:
        self._sample = WeightSample(self._table.tensors, self._table.home)
        self._weight_norms = Norms(self._table.tensors, self._table.home)

    def gradients(self) -> list[Tensor]:
        """The gradients that are there now."""
        return [p.grad for p in self._table.parameters if p.grad is not None]

    @torch.no_grad()
    def norm_of(self, gradients: Sequence[Tensor]) -> Tensor:
        """Their L2 norm, 0-dim, on this probe's device."""
        norms = l2_norms([real_values(gradient) for gradient in gradients], self.device)
        total: Tensor = torch.linalg.vector_norm(norms)
        return total

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement compares with."""
        before = None if self._before is None else self._before.cpu()
        return {"measured": self._measured, "names": list(self._table.facts.names), "sample": before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state; the sample of a model with other parameters is left aside."""
        self._measured = state["measured"]
        sample = state["sample"]
        same = state["names"] == list(self._table.facts.names) and sample is not None
        self._before = sample.to(self.device) if same else None
