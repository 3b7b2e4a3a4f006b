from collections import Counter

import pytest
import torch

from minigpt.generation.sample import sample_token

# Probabilities 0.1, 0.4, 0.2, 0.3.
LOGITS_V = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def shares(
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> dict[int, float]:
    generator = torch.Generator().manual_seed(0)
    draws = 4000
    counts = Counter(
        sample_token(LOGITS_V, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        for _ in range(draws)
    )
    return {token: count / draws for token, count in sorted(counts.items())}


def test_tokens_are_drawn_by_their_probability() -> None:
    assert shares() == pytest.approx({0: 0.1, 1: 0.4, 2: 0.2, 3: 0.3}, abs=0.03)


def test_temperature_sharpens_the_probabilities() -> None:
    # Squared and normalised: 0.01, 0.16, 0.04, 0.09 over 0.3.
    assert shares(temperature=0.5) == pytest.approx({0: 0.033, 1: 0.533, 2: 0.133, 3: 0.3}, abs=0.03)


def test_top_k_keeps_the_likeliest_tokens() -> None:
    assert shares(top_k=2) == pytest.approx({1: 4 / 7, 3: 3 / 7}, abs=0.03)
    assert shares(top_k=9).keys() == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {1}), (0.39, {1}), (0.41, {1, 3}), (0.75, {1, 2, 3}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, kept: set[int]) -> None:
    assert shares(top_p=top_p).keys() == kept


def test_temperature_zero_takes_the_likeliest_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert sample_token(LOGITS_V, temperature=0.0, top_k=None, top_p=None, generator=generator) == 1
    assert torch.equal(generator.get_state(), before)


def test_tiny_temperature_is_greedy_without_overflow() -> None:
    assert shares(temperature=1e-6) == {1: 1.0}
