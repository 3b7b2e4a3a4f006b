"""Causal self-attention: grouped queries, rotary positions, optional QK-norm, through torch's fused kernels."""

# B batch, T time (new tokens), S time (all keys), D hidden, N query heads, K key/value heads, H head_dim

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.model.cache import LayerCache
from minigpt.model.causal_attention import causal_attention
from minigpt.model.config import ModelConfig
from minigpt.model.rotary import apply_rotary


class Attention(nn.Module):
    """Causal grouped-query self-attention (arXiv 2305.13245) without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.resolved_num_kv_heads
        self.head_dim = config.head_dim
        kv_size = self.num_kv_heads * self.head_dim
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.key = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.value = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.query_norm = (
            nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()
        )
        self.key_norm = (
            nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps) if config.qk_norm else nn.Identity()
        )

    def forward(
        self,
        x_BTD: Tensor,
        cos_TH: Tensor,
        sin_TH: Tensor,
        added_BTKH: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        """`added` joins the values (`value_embeddings`), before they go to the cache."""
        B, T, _ = x_BTD.shape
        q_BTNH = self.query(x_BTD).view(B, T, self.num_heads, self.head_dim)
        k_BTKH = self.key(x_BTD).view(B, T, self.num_kv_heads, self.head_dim)
        v_BTKH = self.value(x_BTD).view(B, T, self.num_kv_heads, self.head_dim)
        if added_BTKH is not None:
            # Under autocast a table's rows are fp32, as the stream is.
            v_BTKH = v_BTKH + added_BTKH.to(v_BTKH.dtype)
        v_BKTH = v_BTKH.transpose(1, 2)
        # Norm before transpose: it returns a contiguous tensor, whose order the kernel's output follows.
        q_BNTH = apply_rotary(_normed(self.query_norm, q_BTNH).transpose(1, 2), cos_TH, sin_TH)
        k_BKTH = apply_rotary(_normed(self.key_norm, k_BTKH).transpose(1, 2), cos_TH, sin_TH)
        # Under autocast the fp32 rotary tables may widen q and k: the kernel wants one dtype.
        q_BNTH, k_BKTH = q_BNTH.to(v_BKTH.dtype), k_BKTH.to(v_BKTH.dtype)
        if cache is None:
            out_BNTH = causal_attention(q_BNTH, k_BKTH, v_BKTH)
        else:
            k_BKTH, v_BKTH = cache.append(k_BKTH, v_BKTH)
            mask_TS = _cached_mask(T, k_BKTH.shape[2], x_BTD.device)
            grouped = self.num_kv_heads != self.num_heads
            out_BNTH = F.scaled_dot_product_attention(q_BNTH, k_BKTH, v_BKTH, mask_TS, enable_gqa=grouped)
        return self.output(out_BNTH.transpose(1, 2).reshape(B, T, -1))  # type: ignore[no-any-return]


def _normed(norm: nn.Module, x_BTH: Tensor) -> Tensor:
    """`norm(x)` in its weight's dtype: of two dtypes (autocast) RMSNorm has no fused kernel, and warns."""
    return norm(x_BTH.to(norm.weight.dtype)) if isinstance(norm, nn.RMSNorm) else x_BTH


def _cached_mask(T: int, S: int, device: torch.device) -> Tensor | None:
    """Mask (T, S) where query t, the (S - T + t)-th token, sees all keys up to itself; None for one query."""
    if T == 1:
        return None
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)
