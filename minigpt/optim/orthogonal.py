"""The orthogonal matrix nearest to a given one, roughly: what Muon makes of a gradient.

Polynomials in the matrix, so products are all it takes, and a batch of matrices goes through each product together.
"""

# N matrices, R rows, C columns

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

Quintic = tuple[float, float, float]
"""a, b, c of a x + b x^3 + c x^5, which a step does to every singular value."""

CLASSIC: tuple[Quintic, ...] = ((3.4445, -4.7750, 2.0315),) * 5
"""Ends anywhere in 0.7 to 1.2 for singular values above 0.01 (Jordan 2024, kellerjordan.github.io/posts/muon)."""
_SMALLEST_NORM = 1e-7


def normalize_(matrix: Tensor) -> Tensor:
    """`matrix` over its Frobenius norm, in place: no singular value is above 1 then. One of zeros stays."""
    return matrix.div_(torch.linalg.vector_norm(matrix).clamp(min=_SMALLEST_NORM))


def orthogonalize(x_NRC: Tensor, steps: Sequence[Quintic] = CLASSIC) -> Tensor:
    """Each matrix (R, C) of `x`, of Frobenius norm 1, with its singular values brought near 1; in the dtype of `x`."""
    wide = x_NRC.shape[1] <= x_NRC.shape[2]
    for a, b, c in steps:
        # The smaller of the two Gram matrices, so that tall matrices need no transposed copy.
        gram = torch.bmm(x_NRC, x_NRC.mT) if wide else torch.bmm(x_NRC.mT, x_NRC)
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        # a x as a term of the factor: as a term of the sum it would cost a copy of x.
        factor.diagonal(dim1=1, dim2=2).add_(a)
        x_NRC = torch.bmm(factor, x_NRC) if wide else torch.bmm(x_NRC, factor)
    return x_NRC


@cache
def product_dtype(device: torch.device) -> torch.dtype:
    """The fastest dtype for `orthogonalize` on `device`: the aim is wider than what bf16 or fp16 round."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu" and not cpu_multiplies_bf16():
        return torch.float32
    return torch.bfloat16


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; emulated it is slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
