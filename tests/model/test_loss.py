import math

import pytest
import torch

from minigpt.model.loss import IGNORE_INDEX, summed_loss

# Softmax of (0, ln 3) is (1/4, 3/4); the log-partition is ln 4.
LOGITS_BTV = torch.tensor([[[0.0, math.log(3.0)], [0.0, math.log(3.0)]]])


def test_cross_entropy_is_the_sum_over_targets() -> None:
    sums = summed_loss(LOGITS_BTV, torch.tensor([[0, 1]]), z_loss_weight=0.0)
    assert sums.cross_entropy.item() == pytest.approx(math.log(4.0) + math.log(4.0 / 3.0))
    assert sums.total.item() == sums.cross_entropy.item()


def test_ignored_targets_count_in_neither_sum() -> None:
    sums = summed_loss(LOGITS_BTV, torch.tensor([[IGNORE_INDEX, 1]]), z_loss_weight=1.0)
    assert sums.cross_entropy.item() == pytest.approx(math.log(4.0 / 3.0))
    assert sums.total.item() == pytest.approx(math.log(4.0 / 3.0) + math.log(4.0) ** 2)


def test_z_loss_adds_the_weighted_squared_log_partition() -> None:
    sums = summed_loss(LOGITS_BTV, torch.tensor([[0, 1]]), z_loss_weight=0.5)
    assert sums.total.item() - sums.cross_entropy.item() == pytest.approx(0.5 * 2 * math.log(4.0) ** 2)


def test_loss_is_zero_when_all_targets_are_ignored() -> None:
    logits = LOGITS_BTV.clone().requires_grad_()
    sums = summed_loss(logits, torch.full((1, 2), IGNORE_INDEX), z_loss_weight=1e-4)
    assert sums.total.item() == 0.0
    torch.autograd.backward(sums.total)
    assert logits.grad is not None
    assert logits.grad.abs().max().item() == 0.0


def test_z_loss_gradient_equals_the_one_of_a_difference_quotient() -> None:
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([[1, IGNORE_INDEX, 4]])

    def total(values: torch.Tensor) -> torch.Tensor:
        log_partition = values.logsumexp(-1)[targets != IGNORE_INDEX]
        picked = values[targets != IGNORE_INDEX].gather(1, torch.tensor([[1], [4]])).squeeze(1)
        return (log_partition - picked).sum() + 0.1 * log_partition.square().sum()

    own, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    torch.autograd.backward([summed_loss(own, targets, z_loss_weight=0.1).total, total(reference)])
    torch.testing.assert_close(own.grad, reference.grad, rtol=1e-5, atol=1e-6)


def test_reported_cross_entropy_carries_no_graph() -> None:
    sums = summed_loss(LOGITS_BTV.clone().requires_grad_(), torch.tensor([[0, 1]]), z_loss_weight=0.0)
    assert sums.total.requires_grad
    assert not sums.cross_entropy.requires_grad


def test_half_precision_logits_give_an_fp32_loss() -> None:
    sums = summed_loss(LOGITS_BTV.to(torch.bfloat16), torch.tensor([[0, 1]]), z_loss_weight=1e-4)
    assert sums.total.dtype == torch.float32
