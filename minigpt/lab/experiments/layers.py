"""Looks at a run layer by layer: gradients, the residual stream, what the branches add to it."""

# B batch, T time, D hidden

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.lab.gradients import loss_and_gradient, norm
from minigpt.training.run import Run
from minigpt.training_monitor.untouched import untouched


def look_at_layers(run: Run) -> Mapping[str, Any]:
    """`loss`; norms of its gradient: `total`, `embedding`, and `blocks`, one each; RMS by block: `stream`, `branch`.

    All on the windows that the run's first step reads, whatever step it stands at: before it, `blocks` are that step's
    own norms. The loss is in nats a token. `stream` is what each block puts out, `branch` what its SwiGLU adds. Random
    states and `.grad` end as they were. None stands for what is not finite.
    """
    model, rms = run.model, _Rms(len(run.model.blocks))
    pairs = [
        (batch.inputs_BT.to(run.world.device), batch.targets_BT.to(run.world.device))
        for batch in run.loader.step_at(0).micro_batches
    ]
    with untouched(model), rms.watching(model.blocks):
        loss, gradient = loss_and_gradient(model, pairs, run.precision)
    norms = {name: norm({name: one}) for name, one in gradient.items()}
    of_block = [
        math.hypot(*(size for name, size in norms.items() if name.startswith(f"blocks.{index}.")))
        for index in range(len(model.blocks))
    ]
    return {
        "loss": _finite(loss),
        "total": _finite(math.hypot(*norms.values())),
        "embedding": _finite(norms["embedding.weight"]),
        "blocks": [_finite(size) for size in of_block],
        "stream": [_finite(value) for value in rms.means("stream")],
        "branch": [_finite(value) for value in rms.means("branch")],
    }


class _Rms:
    """Root mean squares of the blocks' outputs, over all forwards that were watched."""

    def __init__(self, count: int) -> None:
        self._squares: dict[str, list[list[Tensor]]] = {
            kind: [[] for _ in range(count)] for kind in ("stream", "branch")
        }

    @contextmanager
    def watching(self, blocks: nn.ModuleList) -> Iterator[None]:
        handles = []
        for index, block in enumerate(blocks):
            handles.append(block.register_forward_hook(partial(self._note, "stream", index)))
            branch = block.get_submodule("mlp")
            handles.append(branch.register_forward_hook(partial(self._note, "branch", index)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, kind: str, index: int, module: nn.Module, given: tuple[Any, ...], x_BTD: Tensor) -> None:
        self._squares[kind][index].append(x_BTD.detach().float().square().mean())

    def means(self, kind: str) -> list[float]:
        return [math.sqrt(float(torch.stack(squares).mean())) for squares in self._squares[kind]]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def number(value: float | None) -> float:
    """What a look kept; NaN for what was not finite."""
    return math.nan if value is None else value
