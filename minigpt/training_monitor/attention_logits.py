"""The largest attention logit of one call, without holding the whole score matrix."""

# B batch, N query heads, K key/value heads, G queries a key head, T queries, S keys, H head_dim

import math

import torch
from torch import Tensor

TOTAL_SCORES = 1 << 24
"""At most so many scores are looked at: the leading sequences of a large batch stand for all."""
CHUNK_SCORES = 1 << 22
MASKED_BELOW = -1e4
"""An additive mask hides a key with minus infinity, or with the lowest number of its format (fp16: -65504)."""


@torch.no_grad()
def largest_logit(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Largest scaled q.k that the mask lets through, 0-dim fp32; arguments as scaled_dot_product_attention's.

    query (..., N, T, H), key (..., K, S, H) with K dividing N; -inf where everything is masked.
    """
    q_BNTH = query.detach().reshape(-1, *query.shape[-3:]) if query.ndim > 3 else query.detach()[None]
    k_BKSH = key.detach().reshape(-1, *key.shape[-3:]) if key.ndim > 3 else key.detach()[None]
    N, T, H = q_BNTH.shape[1:]
    K, S = k_BKSH.shape[1:3]
    B = max(1, min(q_BNTH.shape[0], TOTAL_SCORES // max(1, N * T * S)))
    factor = 1 / math.sqrt(H) if scale is None else scale
    q_BKGTH = q_BNTH[:B].reshape(B, K, N // K, T, H).float() * factor
    k_BK1HS = k_BKSH[:B].float().mT.unsqueeze(2)
    visible = None
    if mask is not None:
        visible = _visible(mask, q_BNTH.shape[0], B, (N, T, S)).reshape(B, K, N // K, T, S)
    largest = torch.full((), -torch.inf, device=query.device)
    rows = max(1, CHUNK_SCORES // max(1, B * N * S))
    for start in range(0, T, rows):
        stop = min(start + rows, T)
        keys = min(stop, S) if is_causal else S
        scores = q_BKGTH[..., start:stop, :] @ k_BK1HS[..., :keys]
        if is_causal:
            seen = torch.ones(stop - start, keys, dtype=torch.bool, device=query.device).tril(start)
            scores = scores.masked_fill(~seen, -torch.inf)
        if visible is not None:
            scores = scores.masked_fill(~visible[..., start:stop, :keys], -torch.inf)
        largest = torch.maximum(largest, scores.amax())
    return largest


def _visible(mask: Tensor, batch: int, kept: int, shape: tuple[int, int, int]) -> Tensor:
    """Which keys count, (kept, N, T, S), without copying what the mask broadcasts."""
    seen = mask.detach() if mask.dtype == torch.bool else mask.detach() > MASKED_BELOW
    leading = seen.reshape(-1, *seen.shape[-3:]) if seen.ndim > 3 else seen
    return leading.expand(batch if leading.ndim > 3 and leading.shape[0] != 1 else kept, *shape)[:kept]
