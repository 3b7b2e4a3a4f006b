"""Which parameters there are to measure: cached, and looked at anew when the model or the optimizers change."""

from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.training_monitor.groups import parameter_groups_by_layer, plain_name
from minigpt.training_monitor.parameter_signals import ParameterFacts
from minigpt.training_monitor.probes.norms import real_values

Source = nn.Module | Iterable[tuple[str, nn.Parameter]]


class ParameterTable:
    """Parameters with values (not on meta, not empty, real or complex), tied ones once, in model order."""

    parameters: list[nn.Parameter]
    tensors: list[Tensor]
    """Their values, sharing memory."""
    facts: ParameterFacts
    members: list[tuple[str, Sequence[int]]]
    """Layer groups in model order, with the indices of their parameters: a range where they are neighbours."""
    home: torch.device
    """Where the numbers come together: the first parameter's device, but an accelerator before the CPU."""

    def __init__(self, source: Source, optimizers: Sequence[Optimizer] = ()) -> None:
        self._model = source if isinstance(source, nn.Module) else None
        self._named = [] if isinstance(source, nn.Module) else list(source)
        self._optimizers = optimizers
        self._tables: list[Mapping[str, object]] = []
        self._owners: list[dict[str, nn.Parameter | None]] = []
        self._keys: list[str] = []
        self._owned: list[nn.Parameter | None] = []
        """What each of `_owners` holds under its one of `_keys`."""
        self._read()

    def refresh(self) -> bool:
        """Follow what changed since the last look; whether the rows are no longer the same, one for one."""
        # By map: this is done at every step, and for each parameter.
        same = all(map(is_, map(dict.get, self._owners, self._keys), self._owned))
        if same and self._state() == self._seen:
            return False
        before = self._rows()
        self._read()
        after = self._rows()
        return len(before) != len(after) or any(
            one[0] is not other[0] or one[1:] != other[1:] for one, other in zip(before, after, strict=True)
        )

    def _rows(self) -> list[tuple[nn.Parameter, torch.Size, torch.dtype, torch.device]]:
        pairs = zip(self.parameters, self.tensors, strict=True)
        return [(parameter, tensor.shape, tensor.dtype, tensor.device) for parameter, tensor in pairs]

    def _read(self) -> None:
        if self._model is not None:
            self._named = list(self._model.named_parameters())
            modules = list(self._model.modules())
            self._tables = [table for m in modules for table in (m._parameters, m._modules)]
            places = [(m._parameters, key, p) for m in modules for key, p in m._parameters.items()]
            self._owners = [owner for owner, _, _ in places]
            self._keys, self._owned = [key for _, key, _ in places], [p for _, _, p in places]
        named = [(name, p, real_values(p)) for name, p in self._named if _has_values(p)]
        named = [row for row in named if row[2].numel()]
        self._without_values = [p for _, p in self._named if not _has_values(p)]
        self.parameters = [parameter for _, parameter, _ in named]
        self.tensors = [tensor for _, _, tensor in named]
        self.home = _home(self.tensors)
        facts = self._facts([name for name, _, _ in named])
        if facts != getattr(self, "facts", None):
            self.facts = facts
            self.members = _members(facts.groups)
        self._seen = self._state()

    def _facts(self, names: list[str]) -> ParameterFacts:
        groups = parameter_groups_by_layer(names)
        optimized = {id(p) for owner in self._optimizers for g in owner.param_groups for p in g["params"]}
        groups_at_rest = [g for owner in self._optimizers for g in owner.param_groups if _at_rest(g)]
        resting = {id(p) for group in groups_at_rest for p in group["params"]}
        return ParameterFacts(
            names=tuple(map(plain_name, names)),
            groups=tuple(groups[name] for name in names),
            sizes=tuple(tensor.numel() for tensor in self.tensors),
            trainable=tuple(parameter.requires_grad for parameter in self.parameters),
            optimized=tuple(id(p) in optimized for p in self.parameters) if self._optimizers else None,
            resting=tuple(id(p) in resting for p in self.parameters) if resting else None,
        )

    def _state(self) -> tuple[list[object], ...]:
        """What tells cheaply that something changed: flags, memory, sizes of modules and optimizer groups."""
        return (
            [p.requires_grad for p in self.parameters],
            list(map(Tensor.data_ptr, self.parameters)),
            list(map(len, self._tables)),
            [len(g["params"]) for optimizer in self._optimizers for g in optimizer.param_groups],
            [_at_rest(g) for optimizer in self._optimizers for g in optimizer.param_groups],
            [_has_values(p) for p in self._without_values],
        )


def _at_rest(group: Mapping[str, Any]) -> bool:
    """Whether the group's learning rate is 0; one on a device is not waited for."""
    lr = group.get("lr")
    return isinstance(lr, (int, float)) and lr == 0


def _has_values(parameter: nn.Parameter) -> bool:
    if parameter.is_meta or isinstance(parameter, nn.UninitializedParameter):
        return False
    return (parameter.is_floating_point() or parameter.is_complex()) and parameter.element_size() > 1


def _members(groups: Sequence[str]) -> list[tuple[str, Sequence[int]]]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [(group, _as_range(indices)) for group, indices in members.items()]


def _as_range(indices: list[int]) -> Sequence[int]:
    run = range(indices[0], indices[-1] + 1)
    return run if len(run) == len(indices) else indices


def _home(tensors: Sequence[Tensor]) -> torch.device:
    devices = [tensor.device for tensor in tensors]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
