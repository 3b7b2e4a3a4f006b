"""The head's product and the cross-entropy in one, over chunks of tokens: the logits of a batch are never all there.

Each chunk's logits are turned into their gradient at once, and that into the gradients of the hidden states and of the
head's weight, so the backward pass has only to scale what is there: three products, none of them twice (Liger kernel,
arXiv 2410.10989, has the idea for GPUs).
"""

# M tokens, C tokens of a chunk, D hidden, V vocabulary

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.loss import IGNORE_INDEX, LossSums, soft_capped, summed_loss

CHUNK_TOKENS = 1024


def fused_summed_loss(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    targets_BT: Tensor,
    z_loss_weight: float,
    logit_softcap: float | None = None,
) -> LossSums:
    """What `summed_loss` gives of the (soft-capped) logits `F.linear(hidden, weight)`, up to rounding."""
    hidden_MD, targets_M = hidden_BTD.flatten(0, 1), targets_BT.flatten()
    if torch.is_grad_enabled():
        sums_2: Tensor = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_MD, weight_VD, targets_M, z_loss_weight, logit_softcap
        )
        return LossSums(sums_2[0], sums_2[1].detach())
    chunks = [
        summed_loss(
            soft_capped(F.linear(hidden_CD, weight_VD), logit_softcap).unsqueeze(0), targets_C, z_loss_weight
        )
        for hidden_CD, targets_C in zip(
            torch.split(hidden_MD, CHUNK_TOKENS), torch.split(targets_M, CHUNK_TOKENS), strict=True
        )
    ]
    total, cross_entropy = (torch.stack(parts).sum() for parts in zip(*chunks, strict=True))
    return LossSums(total, cross_entropy)


class LinearCrossEntropy(torch.autograd.Function):
    """(total, cross-entropy) in one fp32 tensor, of hidden (M, D), weight (V, D) and targets (M,).

    Only the total has a gradient. Products are computed in autocast's type where it is on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        targets_M: Tensor,
        z_loss_weight: float,
        logit_softcap: float | None,
    ) -> Tensor:
        dtype = _product_dtype(hidden_MD)
        weight = weight_VD.to(dtype)
        total = cross_entropy = torch.zeros((), device=hidden_MD.device)
        grads_hidden, grad_weight = [], torch.zeros_like(weight_VD, dtype=torch.float32)
        for hidden_CD, targets_C in zip(
            torch.split(hidden_MD.to(dtype), CHUNK_TOKENS), torch.split(targets_M, CHUNK_TOKENS), strict=True
        ):
            logits_CV = _capped(F.linear(hidden_CD, weight), logit_softcap)
            ignored_C1 = (targets_C == IGNORE_INDEX).unsqueeze(1)
            own_C1 = targets_C.unsqueeze(1).masked_fill(ignored_C1, 0)
            log_p_CV = torch.log_softmax(logits_CV.float(), dim=-1)
            own_log_p_C1 = log_p_CV.gather(-1, own_C1)
            cross_entropy = cross_entropy - own_log_p_C1.masked_fill(ignored_C1, 0.0).sum()
            slope_C1 = None
            if z_loss_weight:
                partition_C1 = logits_CV.gather(-1, own_C1).float() - own_log_p_C1
                total = total + z_loss_weight * partition_C1.masked_fill(ignored_C1, 0.0).square().sum()
                slope_C1 = 1 + 2 * z_loss_weight * partition_C1
            grad_CV = _gradient(log_p_CV, own_C1, ignored_C1, slope_C1)
            if logit_softcap is not None:
                grad_CV = _before_the_cap(grad_CV, logits_CV, logit_softcap)
            grad_CV = grad_CV.to(dtype)
            grads_hidden.append(grad_CV @ weight)
            grad_weight = grad_weight + (grad_CV.t() @ hidden_CD).float()
        ctx.save_for_backward(torch.cat(grads_hidden), grad_weight)
        ctx.dtypes = hidden_MD.dtype, weight_VD.dtype
        # One tensor: of two outputs, equal without z-loss, inductor (torch 2.13) makes one, and the gradient of the one
        # goes with the detached copy of the other.
        return torch.stack([total + cross_entropy, cross_entropy])

    @staticmethod
    def backward(ctx: Any, grad_2: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden_MD, grad_weight_VD = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        grad = grad_2[0]
        grad_hidden_MD = (grad_hidden_MD.float() * grad).to(hidden_dtype)
        return grad_hidden_MD, (grad_weight_VD * grad).to(weight_dtype), None, None, None


def _product_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if autocast else x.dtype


def _gradient(log_p_CV: Tensor, own_C1: Tensor, ignored_C1: Tensor, slope_C1: Tensor | None) -> Tensor:
    """Of the summed losses in the logits: the probabilities, times the z-loss's slope, less 1 at the targets."""
    if torch.compiler.is_compiling():
        # One pass with what stands before and after.
        p_CV = log_p_CV.exp()
        grad_CV = p_CV if slope_C1 is None else p_CV * slope_C1
        ids_V = torch.arange(p_CV.shape[1], device=p_CV.device)
        grad_CV = torch.where(ids_V == own_C1, grad_CV - 1, grad_CV)
        return grad_CV.masked_fill(ignored_C1, 0.0)
    # Each call is a pass over the chunk: as few as there can be, in place.
    grad_CV = log_p_CV.exp_()
    if slope_C1 is not None:
        grad_CV *= slope_C1
    grad_CV.scatter_add_(1, own_C1, torch.full_like(own_C1, -1, dtype=grad_CV.dtype))
    return grad_CV.masked_fill_(ignored_C1, 0.0)


def _capped(logits_CV: Tensor, cap: float | None) -> Tensor:
    """`soft_capped`; eager in place, and of `logits` nothing is left."""
    if cap is None or torch.compiler.is_compiling():
        return soft_capped(logits_CV, cap)
    return logits_CV.float().div_(cap).tanh_().mul_(cap).to(logits_CV.dtype)


def _before_the_cap(grad_CV: Tensor, logits_CV: Tensor, cap: float) -> Tensor:
    """The gradient in the logits as the head made them; eager in place, and of `logits` nothing is left."""
    if torch.compiler.is_compiling():
        return grad_CV * (1 - (logits_CV.float() / cap).square())
    slope_CV = logits_CV.float().div_(cap).square_().neg_().add_(1)
    return grad_CV.mul_(slope_CV)
