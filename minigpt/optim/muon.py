"""Muon: momentum, orthogonalised; matrices of one shape go through it together."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from minigpt.optim.orthogonal import CLASSIC, Quintic, normalize_, orthogonalize, product_dtype

RMS = 0.2
"""Of an update at learning rate 1: AdamW's is 0.2 to 0.4 (Moonlight, arXiv 2502.16982)."""
_CPU_BATCH_BYTES = 8 << 20
"""Matrices that go through together are to stay in a CPU's caches (measured on 4 cores with AMX: the products of 24 of
384 x 384 at 4.2 TFLOP/s, of 64 of 512 x 512 at 1.7)."""
_BATCH_BYTES = 256 << 20


class Muon(Optimizer):
    """Muon (Jordan 2024, kellerjordan.github.io/posts/muon) for matrices, the update's RMS matched to AdamW's.

    The numbers and the state of `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")`, to the rounding of bf16; but
    matrices of one shape share each matrix product, and an update can be called off on the device. Weights and momentum
    stay in their own dtype: only the products are in 16 bits, where the device multiplies those.

    Raises:
        ValueError: a parameter is no matrix.
    """

    # As fused AdamW: `step` heeds `grad_scale` and `found_inf`, tensors that GradScaler and our loop lay beside it.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        orthogonal_steps: Sequence[Quintic] = CLASSIC,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._orthogonal_steps = tuple(orthogonal_steps)
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim != 2:
                raise ValueError(f"Muon is for matrices; a parameter has the shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix that has a gradient; with `found_inf` at 1 nothing changes, whatever the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        off: Tensor | None = getattr(self, "found_inf", None)
        if off is not None and off.is_cpu:
            # At hand, where a GPU would have to be waited for: two passes over memory less.
            if off.item():
                return loss
            off = None
        for group in self.param_groups:
            for matrices in _batches([p for p in group["params"] if p.grad is not None]):
                self._update(matrices, group["lr"], group["weight_decay"], group["momentum"], off)
        return loss

    def _update(
        self,
        matrices: list[Tensor],
        lr: float,
        weight_decay: float,
        momentum: float,
        found_inf: Tensor | None,
    ) -> None:
        """One update of `matrices`, all of one shape; where `found_inf` is 1, none."""
        off = None if found_inf is None else found_inf != 0
        first = matrices[0]
        directions = torch.empty(
            (len(matrices), *first.shape), dtype=product_dtype(first.device), device=first.device
        )
        fresh = _unless(off, 1 - momentum, 0.0, first.dtype)
        # Matrix by matrix: each stays in the caches until all is done that reads it.
        for matrix, direction in zip(matrices, directions, strict=True):
            gradient, average = self._gradient(matrix, off), self._average(matrix)
            average.lerp_(gradient, fresh)
            # Nesterov: where the average will be after one more such gradient.
            # Normalised before it is rounded: a small gradient would be nothing in fp16.
            direction.copy_(normalize_(gradient.lerp(average, momentum)))
        directions = orthogonalize(directions, self._orthogonal_steps)
        if off is not None:
            directions.masked_fill_(off, 0.0)
        kept = _unless(off, 1 - lr * weight_decay, 1.0, first.dtype)
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(kept)
            matrix.add_(direction, alpha=-lr * RMS * math.sqrt(max(first.shape)))

    def _gradient(self, matrix: Tensor, off: Tensor | None) -> Tensor:
        """The gradient, unscaled; zeros where the update is called off, since NaN x 0 is NaN."""
        gradient, scale = matrix.grad, getattr(self, "grad_scale", None)
        assert gradient is not None
        if scale is not None:
            gradient = gradient / scale
        return gradient if off is None else gradient.masked_fill(off, 0.0)

    def _average(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]  # type: ignore[no-any-return]


def _unless(off: Tensor | None, value: float, instead: float, dtype: torch.dtype) -> Tensor | float:
    """`value`, or `instead` where the update is called off, chosen on the device."""
    if off is None:
        return value
    return torch.where(off, instead, value).to(dtype)


def _batches(matrices: list[Tensor]) -> Iterator[list[Tensor]]:
    """`matrices` by shape (and device and dtype), as many at a time as are fast together."""
    alike: dict[tuple[object, ...], list[Tensor]] = {}
    for matrix in matrices:
        alike.setdefault((matrix.shape, matrix.device, matrix.dtype), []).append(matrix)
    for group in alike.values():
        most = _CPU_BATCH_BYTES if group[0].device.type == "cpu" else _BATCH_BYTES
        count = max(1, most // (2 * group[0].numel()))
        # Batches as even as can be.
        parts = -(-len(group) // count)
        for part in range(parts):
            yield group[part * len(group) // parts : (part + 1) * len(group) // parts]
