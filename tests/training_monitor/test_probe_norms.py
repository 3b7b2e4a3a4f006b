"""Norms of tensors of all kinds, in order, of the values they have at the time."""

import torch

from minigpt.training_monitor.probes.norms import LARGE, ROWS, Norms


def test_norms_are_in_order_when_the_tensors_are_of_many_kinds() -> None:
    torch.manual_seed(0)
    kinds = [
        torch.randn(5),
        torch.randn(ROWS, LARGE // ROWS),
        torch.randn(7, 3).half(),
        torch.randn(4).double(),
    ]
    wanted = torch.stack([tensor.float().norm() for tensor in kinds])
    torch.testing.assert_close(Norms(kinds, torch.device("cpu")).take(), wanted, rtol=1e-3, atol=0)


def test_norms_follow_the_values_when_they_change_in_place() -> None:
    tensors = [torch.ones(4), torch.ones(ROWS, LARGE // ROWS)]
    norms = Norms(tensors, torch.device("cpu"))
    before = norms.take()
    for tensor in tensors:
        tensor.mul_(3)
    torch.testing.assert_close(norms.take(), 3 * before)
