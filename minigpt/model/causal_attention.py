"""Causal attention whose backward pass, on a CPU, never computes what the mask takes away.

torch's kernel for the CPU is quick forwards; backwards it takes five times as long for two and a half times the
arithmetic. Here the backward pass goes over blocks of queries, each against the keys up to its own last one, and
computes the probabilities again from the log-sum-exp that the forward kernel leaves (FlashAttention-2, arXiv
2307.08691): nothing of the size of T x T is kept. It is written for the compiler, which makes one pass of what lies
between two products; eager it does not pay.
"""

# B batch, T time, N query heads, K key/value heads, H head_dim, L heads of all sequences (B x N),
# Q queries of a block, S keys up to the block's end

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_BLOCKS = 4
"""Of queries: more save little arithmetic and cost time in compiling."""
SMALLEST_BLOCK = 128
"""Queries: smaller products waste more than the mask saves."""


def causal_attention(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor) -> Tensor:
    """Attention of each position to itself and all before it, (B, N, T, H); K divides N.

    Equals `F.scaled_dot_product_attention(..., is_causal=True)` up to rounding, and is it wherever that is quicker.
    """
    if _own_backward_pays(q_BNTH):
        groups = q_BNTH.shape[1] // k_BKTH.shape[1]
        k_BNTH, v_BNTH = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (k_BKTH, v_BKTH))
        out_BNTH: Tensor = BlockedAttention.apply(q_BNTH, k_BNTH, v_BNTH)  # type: ignore[no-untyped-call]
        return out_BNTH
    grouped = k_BKTH.shape[1] != q_BNTH.shape[1]
    return F.scaled_dot_product_attention(q_BNTH, k_BKTH, v_BKTH, is_causal=True, enable_gqa=grouped)


def _own_backward_pays(q_BNTH: Tensor) -> bool:
    return (
        q_BNTH.device.type == "cpu"
        and torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and num_blocks(q_BNTH.shape[2]) > 1
    )


def num_blocks(length: int) -> int:
    """Equal blocks of queries that `length` is cut into: 1, 2, 3 or 4."""
    fitting = range(min(MOST_BLOCKS, length // SMALLEST_BLOCK), 0, -1)
    return next((blocks for blocks in fitting if length % blocks == 0), 1)


class BlockedAttention(torch.autograd.Function):
    """torch's forward kernel for the CPU with a backward pass in blocks; q, k, v (B, N, T, H) of one dtype."""

    @staticmethod
    def forward(ctx: Any, q_BNTH: Tensor, k_BNTH: Tensor, v_BNTH: Tensor) -> Tensor:
        # In one order with the heads: a block of each is then a view that the products take without a copy.
        q_BNTH, k_BNTH, v_BNTH = q_BNTH.contiguous(), k_BNTH.contiguous(), v_BNTH.contiguous()
        out_BNTH, lse_BNT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BNTH, k_BNTH, v_BNTH, 0.0, True
        )
        ctx.save_for_backward(q_BNTH, k_BNTH, v_BNTH, out_BNTH, lse_BNT)
        return out_BNTH  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_BNTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BNTH, k_BNTH, v_BNTH, out_BNTH, lse_BNT = ctx.saved_tensors
        # The softmax's own correction: rows of the output against their gradients.
        delta_BNT = (grad_BNTH.float() * out_BNTH.float()).sum(-1)
        q_LTH, k_LTH, v_LTH, grad_LTH = (
            x.flatten(0, 1) for x in (q_BNTH, k_BNTH, v_BNTH, grad_BNTH.contiguous())
        )
        lse_LT1, delta_LT1 = (x.reshape(len(q_LTH), -1, 1) for x in (lse_BNT, delta_BNT))
        length, scale = q_LTH.shape[1], 1 / math.sqrt(q_LTH.shape[2])
        size = length // num_blocks(length)
        later_QQ = torch.ones(size, size, dtype=torch.bool, device=q_LTH.device).triu(1)
        grads_q, grads_k, grads_v = [], [], []
        for start in range(0, length, size):
            end = start + size
            q_LQH, grad_LQH = q_LTH[:, start:end], grad_LTH[:, start:end]
            k_LSH, v_LSH = k_LTH[:, :end], v_LTH[:, :end]
            scores_LQS = torch.bmm(q_LQH, k_LSH.transpose(1, 2)).float() * scale
            p_LQS = (scores_LQS - lse_LT1[:, start:end]).exp().masked_fill(F.pad(later_QQ, (start, 0)), 0.0)
            grad_p_LQS = torch.bmm(grad_LQH, v_LSH.transpose(1, 2)).float()
            grad_scores_LQS = (p_LQS * (grad_p_LQS - delta_LT1[:, start:end]) * scale).to(q_LTH.dtype)
            grads_q.append(torch.bmm(grad_scores_LQS, k_LSH))
            grads_k.append(torch.bmm(grad_scores_LQS.transpose(1, 2), q_LQH))
            grads_v.append(torch.bmm(p_LQS.to(v_LTH.dtype).transpose(1, 2), grad_LQH))
        grads = torch.cat(grads_q, 1), _total(grads_k, size), _total(grads_v, size)
        grad_q, grad_k, grad_v = (grad.view(q_BNTH.shape) for grad in grads)
        return grad_q, grad_k, grad_v


def _total(grads: list[Tensor], size: int) -> Tensor:
    """The sum of the blocks' gradients, each (L, its keys, H), added up in fp32."""
    parts = []
    for index in range(len(grads)):
        shares = [grad[:, index * size : (index + 1) * size].float() for grad in grads[index:]]
        parts.append(sum(shares[1:], start=shares[0]).to(grads[0].dtype))
    return torch.cat(parts, 1)
