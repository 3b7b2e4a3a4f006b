"""What the switch adds and what it leaves alone; test_forward compares the numbers with a plain twin's."""

import math

import pytest
import torch
from torch import nn

from minigpt.model.config import ModelConfig
from minigpt.model.count import flops_per_token
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize

VOCAB_SIZE = 128
OFF = ModelConfig(num_layers=4, hidden_size=64, num_heads=4, num_kv_heads=2, context_length=32, qk_norm=True)

CHANGES: list[dict[str, object]] = [{}, {"norm_position": "post"}, {"tie_embeddings": False}]


def with_tables(count: int, **changes: object) -> ModelConfig:
    return ModelConfig.model_validate(OFF.model_dump() | {"value_embedding_layers": count} | changes)


def initialized(config: ModelConfig, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> GPT:
    model = GPT(config, vocab_size)
    initialize(model, seed)
    return model


def token_ids(length: int = 32) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("num_layers", "count", "layers"),
    [(4, 0, []), (4, 1, [3]), (4, 2, [3, 1]), (5, 3, [4, 2, 0]), (12, 2, [11, 9]), (1, 1, [0])],
)
def test_tables_stand_at_every_second_layer_from_the_last_one_on(
    num_layers: int, count: int, layers: list[int]
) -> None:
    config = ModelConfig(num_layers=num_layers, value_embedding_layers=count)
    assert list(config.layers_with_value_embedding) == layers


def test_other_weights_are_those_of_a_model_without_tables() -> None:
    plain = initialized(OFF).state_dict()
    for count in (1, 2):
        state = initialized(with_tables(count)).state_dict()
        added = {name for name in state if name.startswith("value_embeddings.")}
        layers = with_tables(count).layers_with_value_embedding
        assert added == {f"value_embeddings.{n}.{part}" for n in layers for part in ("table.weight", "gate")}
        assert state.keys() - added == plain.keys()
        assert all(torch.equal(state[name], value) for name, value in plain.items())


def test_tables_differ_by_layer_and_seed() -> None:
    first, same, other = (initialized(with_tables(2), seed).state_dict() for seed in (3, 3, 4))
    one, two = (f"value_embeddings.{layer}.table.weight" for layer in (1, 3))
    assert torch.equal(first[one], same[one])
    assert not torch.equal(first[one], other[one])
    assert not torch.equal(first[one], first[two])


def test_rows_start_as_large_as_the_values_they_join() -> None:
    model = initialized(with_tables(1))
    x_BTD = nn.functional.rms_norm(torch.randn(2, 32, 64, generator=torch.Generator().manual_seed(0)), (64,))
    values = x_BTD @ model.get_parameter("blocks.3.attention.value.weight").T
    added = model.value_embeddings.of(3, token_ids())
    assert added is not None
    assert added.shape == (2, 32, 2, 16)
    assert added.std().item() == pytest.approx(values.std().item(), rel=0.1)


def test_largest_seed_has_a_stream_for_tables_too() -> None:
    assert initialized(with_tables(1), 2**64 - 1).state_dict()["value_embeddings.3.table.weight"].any()


@pytest.mark.parametrize("closed", ["gate", "table.weight"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_logits_are_those_without_tables_when_nothing_is_added(
    closed: str, changes: dict[str, object]
) -> None:
    model, plain = initialized(with_tables(2, **changes)), initialized(with_tables(0, **changes))
    ids = token_ids()
    with torch.no_grad():
        assert not torch.equal(model(ids), plain(ids))
        for name, parameter in model.named_parameters():
            if name.startswith("value_embeddings.") and name.endswith(closed):
                parameter.zero_()
        assert torch.equal(model(ids), plain(ids))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_first_loss_is_near_ln_vocabulary(changes: dict[str, object]) -> None:
    model = initialized(with_tables(2, **changes), vocab_size=4096)
    ids = torch.randint(0, 4096, (2, 33), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = model(ids[:, :-1], ids[:, 1:].contiguous()).total.item() / 64
    assert loss == pytest.approx(math.log(4096), rel=0.02)


def test_every_table_and_gate_gets_a_gradient_and_rows_of_absent_tokens_none() -> None:
    model = initialized(with_tables(2))
    ids = token_ids()
    model(ids, ids).total.backward()
    absent = torch.ones(VOCAB_SIZE, dtype=torch.bool)
    absent[ids.flatten()] = False
    for name, parameter in model.value_embeddings.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        if name.endswith("table.weight"):
            assert not parameter.grad[absent].any()


def test_lookups_are_no_arithmetic() -> None:
    assert flops_per_token(with_tables(2), VOCAB_SIZE) == flops_per_token(OFF, VOCAB_SIZE)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_traced_graph_is_whole_and_gives_the_eager_gradients() -> None:
    eager, traced = initialized(with_tables(2)), initialized(with_tables(2))
    ids = token_ids()
    compiled = torch.compile(traced, backend="aot_eager", fullgraph=True)
    losses = [model(ids, ids).total for model in (eager, compiled)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for (name, one), two in zip(eager.named_parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-4, msg=name)
