from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.model import fused_loss
from minigpt.model.fused_loss import fused_summed_loss
from minigpt.model.loss import IGNORE_INDEX, LossSums, soft_capped, summed_loss

BATCH, LENGTH, HIDDEN, VOCAB = 3, 7, 8, 29


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 tokens: two chunks of 8 and a smaller one."""
    monkeypatch.setattr(fused_loss, "CHUNK_TOKENS", 8)


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(BATCH, LENGTH, HIDDEN, generator=generator)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator)
    targets = torch.randint(VOCAB, (BATCH, LENGTH), generator=generator)
    targets[0, 2] = targets[2, 5] = IGNORE_INDEX
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def _grad(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def _plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, z_loss_weight: float, softcap: float | None = None
) -> LossSums:
    return summed_loss(soft_capped(F.linear(hidden, weight), softcap), targets, z_loss_weight)


def _with_gradients(
    loss: Callable[..., LossSums],
    z_loss_weight: float,
    dtype: torch.dtype | None,
    softcap: float | None = None,
) -> list[Tensor]:
    """Both sums and both gradients, scaled as a step scales them."""
    hidden, weight, targets = _inputs()
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype):
        sums = loss(hidden, weight, targets, z_loss_weight, softcap)
    torch.autograd.backward(sums.total * 0.25)
    found = [sums.total.detach(), sums.cross_entropy, _grad(hidden), _grad(weight)]
    assert {x.dtype for x in found} == {torch.float32}
    return found


@pytest.mark.parametrize("z_loss_weight", [0.0, 0.1])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(None, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)]
)
def test_sums_and_gradients_equal_the_plain_ones(
    z_loss_weight: float, softcap: float | None, dtype: torch.dtype | None, tolerance: float
) -> None:
    own = _with_gradients(fused_summed_loss, z_loss_weight, dtype, softcap)
    plain = _with_gradients(_plain, z_loss_weight, dtype, softcap)
    for ours, theirs in zip(own, plain, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("z_loss_weight", "softcap"), [(0.0, None), (0.1, None), (0.1, 2.0)])
def test_compiled_form_equals_the_eager_one(
    monkeypatch: pytest.MonkeyPatch, z_loss_weight: float, softcap: float | None
) -> None:
    eager = _with_gradients(fused_summed_loss, z_loss_weight, None, softcap)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    traced = _with_gradients(fused_summed_loss, z_loss_weight, None, softcap)
    for ours, theirs in zip(traced, eager, strict=True):
        torch.testing.assert_close(ours, theirs)


# torch's own tracing of an autograd Function warns of itself.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_gradient_of_the_total_survives_tracing() -> None:
    hidden, weight, targets = _inputs()
    traced = torch.compile(fused_summed_loss, backend="aot_eager", dynamic=False)
    torch.autograd.backward(traced(hidden, weight, targets, 0.0).total)
    own, expected = _grad(weight), _with_gradients(_plain, 0.0, None)[3] / 0.25
    torch.testing.assert_close(own, expected)


def test_sums_are_the_same_without_gradients() -> None:
    hidden, weight, targets = _inputs()
    with torch.no_grad():
        without = fused_summed_loss(hidden, weight, targets, 0.1, 2.0)
    torch.testing.assert_close(list(without), list(_plain(hidden, weight, targets, 0.1, 2.0)))
    assert not without.total.requires_grad


def test_reported_cross_entropy_carries_no_graph() -> None:
    sums = fused_summed_loss(*_inputs(), 0.0)
    assert sums.total.requires_grad
    assert not sums.cross_entropy.requires_grad


def test_loss_and_gradients_are_zero_when_all_targets_are_ignored() -> None:
    hidden, weight, targets = _inputs()
    sums = fused_summed_loss(hidden, weight, torch.full_like(targets, IGNORE_INDEX), 0.1)
    torch.autograd.backward(sums.total)
    assert sums.total.item() == 0.0
    assert _grad(hidden).abs().max().item() == _grad(weight).abs().max().item() == 0.0


def test_nan_in_one_hidden_state_reaches_loss_and_gradients() -> None:
    hidden, weight, targets = _inputs()
    poisoned = hidden.detach().clone()
    poisoned[1, 1, 0] = float("nan")
    sums = fused_summed_loss(poisoned.requires_grad_(), weight, targets, 0.0)
    torch.autograd.backward(sums.total)
    assert sums.cross_entropy.isnan()
    assert _grad(weight).isnan().any()


def test_no_tensor_of_all_logits_is_made() -> None:
    hidden, weight, targets = _inputs()
    with torch.profiler.profile(record_shapes=True) as record:
        torch.autograd.backward(fused_summed_loss(hidden, weight, targets, 0.1).total)
    rows = {shape[0] for event in record.events() for shape in event.input_shapes if shape[1:] == [VOCAB]}
    assert rows == {8, BATCH * LENGTH % 8}
