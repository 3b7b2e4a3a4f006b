"""Activation checkpointing: what the backward pass computes again instead of keeping it (arXiv 1604.06174)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["off", "selective", "full"]
"""Nothing; all but the products of matrices (arXiv 2205.05198); all, from each block's input on."""

_aten = torch.ops.aten
_KEPT = frozenset(
    operator.default
    for operator in (
        _aten.mm,
        _aten.addmm,
        _aten._scaled_dot_product_flash_attention,
        _aten._scaled_dot_product_flash_attention_for_cpu,
        _aten._scaled_dot_product_efficient_attention,
        _aten._scaled_dot_product_cudnn_attention,
    )
)
"""What costs the time of a block. Attention's kernels keep no T x T weights: they are as small as any other."""


def recomputed(block: Callable[..., Tensor], kind: Recompute, *inputs: Tensor | None) -> Tensor:
    """`block(*inputs)`, which in its backward pass computes again what `kind` says; the same bits, dropout too."""
    if kind == "selective":
        result = checkpoint(block, *inputs, use_reentrant=False, context_fn=_contexts)
    else:
        result = checkpoint(block, *inputs, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
