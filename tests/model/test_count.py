import pytest

from minigpt.model.config import ModelConfig
from minigpt.model.count import flops_per_token, num_matrix_parameters, num_parameters, padded_vocab_size
from minigpt.model.gpt import GPT

BASE = {"num_layers": 3, "hidden_size": 32, "num_heads": 4, "context_length": 16}


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("num_kv_heads", [None, 1, 2])
@pytest.mark.parametrize("value_embedding_layers", [0, 2])
def test_parameter_count_equals_the_models(
    norm_position: str,
    tie_embeddings: bool,
    qk_norm: bool,
    num_kv_heads: int | None,
    value_embedding_layers: int,
) -> None:
    config = ModelConfig.model_validate(
        {
            **BASE,
            "norm_position": norm_position,
            "tie_embeddings": tie_embeddings,
            "qk_norm": qk_norm,
            "num_kv_heads": num_kv_heads,
            "value_embedding_layers": value_embedding_layers,
        }
    )
    model = GPT(config, 64)
    assert num_parameters(config, 64) == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for parameter in model.blocks.parameters() if parameter.dim() == 2)
    assert num_matrix_parameters(config) == matrices


def test_flops_of_a_tiny_shape_equal_those_counted_by_hand() -> None:
    config = ModelConfig(
        num_layers=1, hidden_size=4, num_heads=2, num_kv_heads=1, intermediate_size=3, context_length=8
    )
    # query and output 4x4, key and value 4x2, three 4x3 matrices; the head 4x10.
    # Multiply and add: 2 operations; forward and the two products of the backward pass: thrice.
    matrices = 2 * 16 + 2 * 8 + 3 * 12
    # Two products (scores, weighted sum) of 4 numbers with each of on average 8 / 2 keys.
    attention = 2 * 4 * 4
    assert flops_per_token(config, 10) == 3 * 2 * (matrices + 40 + attention)


def test_vocabulary_is_padded_to_a_multiple_of_64() -> None:
    assert [padded_vocab_size(size) for size in (1, 64, 65, 257, 50257)] == [64, 64, 128, 320, 50304]


def test_parameter_names_are_the_contracts() -> None:
    names = set(GPT(ModelConfig.model_validate({**BASE, "num_layers": 1}), 64).state_dict())
    assert names == {
        "embedding.weight",
        "norm.weight",
        "blocks.0.attention_norm.weight",
        "blocks.0.mlp_norm.weight",
        *(f"blocks.0.attention.{part}.weight" for part in ("query", "key", "value", "output")),
        *(f"blocks.0.mlp.{part}.weight" for part in ("gate", "up", "down")),
    }
    untied = GPT(ModelConfig.model_validate({**BASE, "tie_embeddings": False}), 64)
    assert "head.weight" in untied.state_dict()
