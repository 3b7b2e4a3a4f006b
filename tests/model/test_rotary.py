import math

import pytest
import torch

from minigpt.model.rotary import apply_rotary, rotary_tables

HEAD_DIM, LENGTH = 8, 32


def test_tables_start_at_no_rotation_and_turn_by_one_radian_a_position() -> None:
    cos, sin = rotary_tables(HEAD_DIM, LENGTH, theta=10000.0)
    assert cos.shape == sin.shape == (LENGTH, HEAD_DIM)
    assert cos[0].tolist() == [1.0] * HEAD_DIM
    assert sin[0].tolist() == [0.0] * HEAD_DIM
    # The first pair's frequency is theta^0 = 1, the second's theta^(-2/8) = 0.1.
    assert cos[3, 0].item() == pytest.approx(math.cos(3.0))
    assert sin[3, 1].item() == pytest.approx(math.sin(0.3))
    assert sin[3, 1].item() == sin[3, 5].item()


def test_rotation_keeps_the_length_of_each_pair() -> None:
    x = torch.randn(LENGTH, HEAD_DIM, generator=torch.Generator().manual_seed(0))
    turned = apply_rotary(x, *rotary_tables(HEAD_DIM, LENGTH, theta=100.0))
    before, after = (v[:, :4].square() + v[:, 4:].square() for v in (x, turned))
    torch.testing.assert_close(after, before)


def test_query_times_key_depends_on_the_distance_only() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(HEAD_DIM, generator=generator), torch.randn(HEAD_DIM, generator=generator)
    cos, sin = rotary_tables(HEAD_DIM, LENGTH, theta=100.0)
    queries, keys = apply_rotary(q.expand(LENGTH, -1), cos, sin), apply_rotary(k.expand(LENGTH, -1), cos, sin)
    products = queries @ keys.T
    for distance in (-5, 0, 1, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert products[0, 0].item() != pytest.approx(products[0, 7].item(), abs=1e-3)


def test_tables_are_exact_at_far_positions() -> None:
    cos, _ = rotary_tables(HEAD_DIM, 100_001, theta=10000.0)
    assert cos[100_000, 0].item() == pytest.approx(math.cos(100_000.0), abs=1e-6)
    assert cos[100_000, 2].item() == pytest.approx(math.cos(100_000.0 / 100.0), abs=1e-6)
