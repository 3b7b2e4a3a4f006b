"""Whether a language model's answers depend on tokens that come later."""

# B batch, T time, V vocabulary

from collections.abc import Callable

import torch
from torch import Tensor

IGNORED = -100
NEXT, COPY = 0.9, 0.5
"""Shares of targets that are the next input, and the input itself, as the rule on labels has them."""
LogitsOf = Callable[[Tensor], Tensor | None]


class NotJudgedError(Exception):
    """This model cannot be looked at in this way."""


@torch.no_grad()
def influence_of_the_last(
    logits_of: LogitsOf, ids_T: Tensor, pool: Tensor, asked_T: Tensor | None = None
) -> Tensor:
    """How much the last token moves the logits before it, as a share of what it moves at its own place: 0-dim, fp32.
    Root mean squares over V, the largest over T, of the places that are `asked` (None: all).

    `logits_of` gives (2, T, V) for (2, T), in evaluation mode; the other last token is taken out of `pool` (any shape).
    0 for a causal model, to the bit: both forwards have the same shape, so that every number is computed alike, and
    the first row, which stays the same, proves it. NaN where it does not (a model with chance or memory in it, rows
    that depend on each other), where there is no other token, or the last one moves nothing.

    Raises:
        NotJudgedError: the logits have another shape.
    """
    last = ids_T[-1]
    pool = pool.flatten()
    differs = pool != last
    other = pool[differs.int().argmax()]
    original = torch.stack([ids_T, ids_T])
    changed = torch.stack([ids_T, torch.cat([ids_T[:-1], other.reshape(1)])])
    before, after = logits_of(original), logits_of(changed)
    if not (_fits(before, original) and _fits(after, original)):
        raise NotJudgedError("no logits of shape (B, T, V)")
    assert before is not None
    assert after is not None
    moved_BT = (after.float() - before.float()).square().mean(-1).sqrt()
    earlier = moved_BT[1, :-1] if asked_T is None else torch.where(asked_T[:-1], moved_BT[1, :-1], 0.0)
    influence = earlier.max() / moved_BT[1, -1]
    sure = (moved_BT[0].max() == 0) & (moved_BT[1, -1] > 0) & differs.any()
    return torch.where(sure, influence, torch.nan)


def _fits(logits: object, ids_BT: Tensor) -> bool:
    return isinstance(logits, Tensor) and logits.ndim == 3 and logits.shape[:2] == ids_BT.shape


def predicts_the_next(inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Whether the targets are the inputs shifted by one, and by nothing else: a bool, 0-dim."""
    valid = targets_BT != IGNORED
    ahead = valid[..., :-1]
    matches = ((targets_BT[..., :-1] == inputs_BT[..., 1:]) & ahead).sum()
    copies = ((targets_BT == inputs_BT) & valid).sum()
    # Half of the targets, or a masked model's few might be the next ones by chance.
    many = 2 * ahead.sum() >= ahead.numel()
    return many & (matches >= NEXT * ahead.sum()) & (copies < COPY * valid.sum())


def targets_of(gradient_BTV: Tensor) -> Tensor:
    """What the loss asks for, by the gradient of the logits: cross-entropy pulls one of them up, the target's, and
    pushes all others down. (B, T), -100 where nothing is asked, or something else."""
    lowest = gradient_BTV.topk(min(2, gradient_BTV.shape[-1]), dim=-1, largest=False)
    first, second = lowest.values[..., 0], lowest.values[..., -1]
    # With label smoothing others are pulled up a little, too.
    return torch.where((first < 0) & (first < 2 * second), lowest.indices[..., 0], IGNORED)
