from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model.causal_attention import BlockedAttention, causal_attention, num_blocks


def _inputs(length: int, dtype: torch.dtype, kv_heads: int = 4) -> list[Tensor]:
    """q, k, v as the model has them (a transposed view), and the gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, length, heads, 16) for heads in (4, kv_heads, kv_heads, 4)]
    return [torch.randn(shape, generator=generator).to(dtype).transpose(1, 2) for shape in shapes]


def _gradients(attention: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    out = attention(q, k, v)
    torch.autograd.backward(out, inputs[3])
    return [out.detach(), *(x.grad for x in (q, k, v) if x.grad is not None)]


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


@pytest.mark.parametrize("length", [256, 384, 512, 130])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_blocks_equal_torchs_attention(length: int, dtype: torch.dtype, tolerance: float) -> None:
    inputs = _inputs(length, dtype)
    own = _gradients(BlockedAttention.apply, inputs)
    exact = _gradients(_plain, [x.double() for x in inputs])
    for ours, theirs in zip(own, exact, strict=True):
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


def test_grouped_queries_add_up_to_their_key_and_value_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _inputs(256, torch.float32, kv_heads=2)
    plain = _gradients(causal_attention, inputs)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for ours, theirs in zip(_gradients(causal_attention, inputs), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradient_of_one_position_reaches_no_later_one() -> None:
    q, k, v = (x.detach().requires_grad_() for x in _inputs(256, torch.float32)[:3])
    out: Tensor = BlockedAttention.apply(q, k, v)  # type: ignore[no-untyped-call]
    torch.autograd.backward(out[:, :, 100].sum())
    for x in (k, v):
        assert x.grad is not None
        assert x.grad[:, :, 101:].abs().max().item() == 0.0
        assert x.grad[:, :, :101].abs().min(dim=-1).values.max().item() > 0.0


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(2, 1), (128, 1), (255, 1), (256, 2), (384, 3), (400, 2), (512, 4), (4096, 4), (1021, 1)],
)
def test_blocks_are_equal_and_not_too_small(length: int, blocks: int) -> None:
    assert num_blocks(length) == blocks
    assert length % blocks == 0
