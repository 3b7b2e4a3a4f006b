"""Follows a forward call by call and remembers the first that made NaN or infinity of finite numbers."""

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from minigpt.training_monitor.groups import plain_name
from minigpt.training_monitor.hooked_mode import HookedMode
from minigpt.training_monitor.untouched import tensors_in, unwrapped

_ALLOCATES = ("empty", "new_", "full_like", "resize_")
"""Beginnings of the names of functions that make no number of others: a constant, or whatever lay in memory."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """What made a non-finite tensor, and what there is to say of it."""

    module: str
    kind: str
    function: str
    inside: bool
    """Whether it happened inside a module's forward."""
    dtype: str
    input_max: float | None
    non_finite: int
    total: int
    index: tuple[int, ...]
    shape: tuple[int, ...]
    rows_hit: int
    last_row: int
    note: str

    @classmethod
    def of(
        cls,
        made: Tensor,
        *,
        module: str = "",
        kind: str = "",
        function: str = "",
        inside: bool = False,
        inputs: Iterable[Tensor] = (),
        note: str = "",
    ) -> Self:
        """With the facts of the non-finite tensor `made`, and of the `inputs` that it was made from."""
        bad = ~made.isfinite()
        first = torch.unravel_index(bad.flatten().int().argmax(), bad.shape) if bad.ndim else ()
        finite = (each[each.isfinite()].abs() for each in inputs if each.is_floating_point())
        largest = [float(each.max()) for each in finite if each.numel()]
        rows = (bad.flatten(1).any(1) if bad.ndim > 1 else bad.reshape(-1)).nonzero()
        return cls(
            module=module,
            kind=kind,
            function=function,
            inside=inside,
            dtype=str(made.dtype).removeprefix("torch."),
            input_max=max(largest, default=None),
            non_finite=int(bad.sum()),
            total=made.numel(),
            index=tuple(int(place) for place in first),
            shape=tuple(made.shape),
            rows_hit=len(rows),
            last_row=int(rows[-1]) if len(rows) else 0,
            note=note,
        )


Label = tuple[str, str, str]
"""Module, its class, and the function within it."""


class ForwardTrace(HookedMode):
    """While entered, `culprit` becomes the first call of the model's forward, in order of execution, whose output has
    NaN or infinity while what it was given has not. Minus infinity is let through where a mask put it. `source_of` a
    tensor is the call that its NaN came from: others may have come to nothing (a logarithm of 0 that `where` drops).

    With `label_graph`, `labels` says of each node of the autograd graph who made it; `forget` lets go of the graph.
    """

    def __init__(self, model: nn.Module, *, label_graph: bool = False) -> None:
        super().__init__()
        self._model = unwrapped(model)
        self._label_graph = label_graph
        self._inside: list[tuple[str, str]] = []
        self._fed: list[list[Tensor]] = []
        """What each module that is running was given."""
        self.culprit: Culprit | None = None
        self._sources: MutableMapping[Tensor, Culprit] = WeakTensorKeyDictionary()
        self.fed: Culprit | None = None
        """NaN or infinity in what the model itself was given."""
        self.labels: dict[Node, Label] = {}

    def _hook(self) -> Iterator[RemovableHandle]:
        for name, module in self._model.named_modules():
            label = (plain_name(name), type(module).__name__)
            yield module.register_forward_pre_hook(partial(self._before, label), with_kwargs=True)
            yield module.register_forward_hook(partial(self._after, label), with_kwargs=True)

    def _leave(self) -> None:
        self._inside, self._fed = [], []

    def source_of(self, bad: Tensor) -> Culprit | None:
        """Who made the NaN or infinity in a tensor; the first who made any, where its way was not seen."""
        return self._sources.get(bad, self.culprit)

    def forget(self) -> None:
        """Node hooks and labels refer to each other through C++, where no collector sees the circle."""
        self.labels.clear()

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = tensors_in(args) + tensors_in(kwargs)
        in_place = (
            name == "__setitem__" or "out" in kwargs or (name.endswith("_") and not name.endswith("__"))
        )
        before = _state(given) if in_place else None
        result = func(*args, **kwargs)
        made = given[:1] if name == "__setitem__" else tensors_in(result)
        module, kind = self._inside[-1] if self._inside else ("", "")
        if self._label_graph:
            self._label(made, (module, kind, name))
        computes = bool(given) and name != "__get__" and not name.startswith(_ALLOCATES)
        if computes:
            self._judge(made, given, before, (*args, *kwargs.values()), (module, kind, name))
        elif name == "__get__" and made and given and given[0] in self._sources:  # `.data`, `.mT`
            self._sources[made[0]] = self._sources[given[0]]
        return result

    @torch.no_grad()
    def _judge(
        self,
        made: list[Tensor],
        given: list[Tensor],
        before: "_State | None",
        arguments: tuple[Any, ...],
        label: Label,
    ) -> None:
        """Does this call make NaN or infinity of finite numbers, or pass on what another made?"""
        passed = self._passed_on(given)
        for each in made:
            self._sources.pop(each, None)
        after = _state(made)
        if after.finite:
            return
        bad = [each for each in made if not _state([each]).finite]
        if passed is not None:
            self._sources.update((each, passed) for each in bad)
            return
        before = _state(given) if before is None else before
        masked = before.minus_infinity or any(_is_minus_infinity(each) for each in arguments)
        if before.nan_or_infinity or (masked and not after.nan_or_infinity):
            return
        module, kind, function = label
        inputs = [
            each.detach() for each in given if not isinstance(each, nn.Parameter) and each is not bad[0]
        ]
        inputs = inputs or (self._fed[-1] if self._fed else [])
        culprit = Culprit.of(
            bad[0].detach(),
            module=module,
            kind=kind,
            function=function,
            inside=bool(self._inside),
            inputs=inputs,
        )
        self._sources.update((each, culprit) for each in bad)
        self.culprit = self.culprit or culprit

    def _passed_on(self, given: list[Tensor]) -> Culprit | None:
        """Whose NaN a call was given, or else whose minus infinity."""
        known = [each for each in given if each in self._sources]
        worst = (each for each in known if len(known) == 1 or _state([each]).nan_or_infinity)
        first = next(worst, known[0] if known else None)
        return None if first is None else self._sources[first]

    def _before(
        self, label: tuple[str, str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        given = tensors_in(args) + tensors_in(kwargs)
        self._inside.append(label)
        self._fed.append([each.detach() for each in given])
        if module is self._model and self.fed is None:
            bad = next((each for each in given if _state([each]).nan_or_infinity), None)
            if bad is not None:
                self.fed = Culprit.of(bad.detach())

    def _after(
        self,
        label: tuple[str, str],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: object,
    ) -> None:
        """What no function call shows (custom kernels, foreign hooks) is still the innermost module's doing."""
        made, given = tensors_in(output), tensors_in(args) + tensors_in(kwargs)
        if self._label_graph:
            self._label(made, (*label, ""))
        self._judge([each for each in made if each not in self._sources], given, None, (), (*label, ""))
        self._inside.pop()
        self._fed.pop()

    def _label(self, made: list[Tensor], label: Label) -> None:
        """Every node behind these tensors that has no label yet was made by this call."""
        waiting = [each.grad_fn for each in made]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self.labels:
                self.labels[node] = label
                waiting += [behind for behind, _ in node.next_functions]


@dataclass(frozen=True, slots=True)
class _State:
    nan_or_infinity: bool
    minus_infinity: bool

    @property
    def finite(self) -> bool:
        return not (self.nan_or_infinity or self.minus_infinity)


@torch.no_grad()
def _state(tensors: list[Tensor]) -> _State:
    """Whether any has NaN or plus infinity, and whether any has minus infinity."""
    floating = [each for each in tensors if each.is_floating_point() and each.numel() and not each.is_meta]
    bad = [each for each in floating if not bool(each.isfinite().all())]
    return _State(
        any(bool((each.isnan() | (each == torch.inf)).any()) for each in bad),
        any(bool((each == -torch.inf).any()) for each in bad),
    )


def _is_minus_infinity(argument: Any) -> bool:
    return isinstance(argument, float) and argument == -torch.inf
