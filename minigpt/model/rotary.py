"""Rotary position embedding (RoFormer, arXiv 2104.09864), the two halves of a head rotated against each other."""

# T time, H head_dim

import torch
from torch import Tensor


def rotary_tables(
    head_dim: int, length: int, theta: float, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (length, head_dim) in fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim
    # fp64 before the cosine: at position 10^5 an fp32 angle has lost its third decimal.
    angles = torch.outer(torch.arange(length, dtype=torch.float64, device=device), theta**-exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def apply_rotary(x_TH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """`x` (..., T, H) with each pair (i, i + H/2) turned by its position's angle."""
    first, second = x_TH.chunk(2, dim=-1)
    return x_TH * cos_TH + torch.cat([-second, first], dim=-1) * sin_TH
