import pytest
import torch

from minigpt.model.cache import KVCache
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT

SHAPES: dict[str, dict[str, object]] = {
    "plain": {},
    "grouped": {"num_kv_heads": 2},
    "qk norm": {"qk_norm": True, "num_kv_heads": 1},
    "post": {"norm_position": "post"},
    "value embeddings": {"value_embedding_layers": 1, "num_kv_heads": 2},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 6, 3]])
def test_cached_logits_equal_those_of_one_forward(name: str, pieces: list[int]) -> None:
    config = ModelConfig.model_validate(
        {"num_layers": 2, "hidden_size": 32, "num_heads": 4, "context_length": 16, **SHAPES[name]}
    )
    torch.manual_seed(0)
    model = GPT(config, 64).eval()
    ids = torch.randint(0, 64, (2, 16))
    cache = KVCache(config, 2, 16, torch.device("cpu"))
    with torch.no_grad():
        whole = model(ids)
        cached = torch.cat([model(piece, cache=cache) for piece in torch.split(ids, pieces, dim=1)], dim=1)
    assert cache.length == 16
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


def test_cache_refuses_more_positions_than_it_holds() -> None:
    config = ModelConfig(num_layers=1, hidden_size=8, num_heads=2, context_length=16)
    cache = KVCache(config, 1, 4, torch.device("cpu"))
    with pytest.raises(ValueError, match="the cache holds 4 positions, 5 were asked for"):
        GPT(config, 64)(torch.zeros(1, 5, dtype=torch.int64), cache=cache)
