"""Follows a backward node by node and remembers the first that made NaN or infinity of finite gradients."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from minigpt.training_monitor.forward_trace import Culprit, Label


class BackwardTrace:
    """While entered, watches every labelled node of a graph; `culprit` is the first in order of execution."""

    def __init__(self, labels: Mapping[Node, Label]) -> None:
        self._labels = labels
        self._handles: list[RemovableHandle] = []
        self.culprit: Culprit | None = None

    def __enter__(self) -> Self:
        for node, label in self._labels.items():
            self._handles.append(node.register_hook(partial(self._after, label, node.name())))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def _after(
        self, label: Label, node: str, passed_on: Sequence[Tensor | None], received: Sequence[Tensor | None]
    ) -> None:
        if self.culprit is not None:
            return
        arrived = _bad(received)
        made = _bad(passed_on)
        if arrived is None and made is None:
            return
        module, kind, function = label
        # Gradients of finite branches may add up to infinity on the way, and hooks may change them.
        note = "" if arrived is None else "between two nodes: a sum of gradients, or a hook"
        self.culprit = Culprit.of(
            made if arrived is None and made is not None else arrived,  # type: ignore[arg-type]
            module=module,
            kind=kind,
            function=function or node,
            inside=bool(kind),
            inputs=[] if arrived is not None else [each for each in received if each is not None],
            note=note,
        )


def _bad(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """The first gradient with NaN or infinity."""
    floating = (each for each in gradients if each is not None and each.is_floating_point())
    return next((each for each in floating if not bool(each.isfinite().all())), None)
