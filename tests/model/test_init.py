import math

import pytest
import torch

from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize

CONFIG = ModelConfig(num_layers=2, hidden_size=64, num_heads=4, context_length=32)


def initialized(config: ModelConfig, vocab_size: int, seed: int = 0) -> GPT:
    model = GPT(config, vocab_size)
    initialize(model, seed)
    return model


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize(
    ("num_layers", "hidden_size", "vocab_size"),
    [(1, 64, 512), (6, 384, 4096), (2, 1024, 2048), (12, 128, 8192)],
)
def test_first_loss_is_near_ln_vocabulary(
    norm_position: str, tie_embeddings: bool, num_layers: int, hidden_size: int, vocab_size: int
) -> None:
    config = ModelConfig.model_validate(
        {
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "num_heads": 4,
            "context_length": 64,
            "norm_position": norm_position,
            "tie_embeddings": tie_embeddings,
        }
    )
    model = initialized(config, vocab_size)
    ids = torch.randint(0, vocab_size, (2, 65), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = model(ids[:, :-1], ids[:, 1:].contiguous()).total.item() / 128
    assert loss == pytest.approx(math.log(vocab_size), rel=0.02)


def test_same_seed_gives_the_same_weights() -> None:
    first, second, other = (initialized(CONFIG, 128, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_initialize_leaves_the_global_generator_alone() -> None:
    model = GPT(CONFIG, 128)
    before = torch.random.get_rng_state()
    initialize(model, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_model_built_on_meta_equals_the_one_built_directly(tie_embeddings: bool) -> None:
    config = CONFIG.model_copy(update={"tie_embeddings": tie_embeddings, "qk_norm": True})
    with torch.device("meta"):
        late = GPT(config, 128)
    late.to_empty(device="cpu")
    initialize(late, 0)
    direct = initialized(config, 128)
    assert list(late.state_dict()) == list(direct.state_dict())
    for name, value in direct.state_dict().items():
        assert torch.equal(late.state_dict()[name], value), name
    assert torch.equal(late.rotary_cos, direct.rotary_cos)
    assert torch.equal(late.rotary_sin, direct.rotary_sin)


def test_branches_write_less_into_a_deeper_stream() -> None:
    config = ModelConfig(num_layers=8, hidden_size=256, num_heads=4)
    state = initialized(config, 512).state_dict()
    assert state["blocks.0.attention.query.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    for name in ("blocks.0.attention.output.weight", "blocks.7.mlp.down.weight"):
        assert state[name].std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert state["norm.weight"].tolist() == [1.0] * 256


def test_zeroed_outputs_make_every_block_the_identity() -> None:
    model = initialized(CONFIG.model_copy(update={"zero_init_outputs": True}), 128)
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    cos, sin = model.rotary_cos[:5], model.rotary_sin[:5]
    with torch.no_grad():
        assert all(torch.equal(block(x, cos, sin), x) for block in model.blocks)
    plain = initialized(CONFIG, 128).state_dict()
    zeroed = {name for name, value in model.state_dict().items() if not torch.equal(value, plain[name])}
    assert zeroed == {
        f"blocks.{n}.{last}.weight" for n in range(2) for last in ("attention.output", "mlp.down")
    }
