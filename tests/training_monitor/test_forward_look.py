"""A look at the forward pass sees what is there and leaves no trace."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from minigpt.training_monitor import attention_logits
from minigpt.training_monitor.armed_look import arm
from minigpt.training_monitor.attention_logits import largest_logit
from minigpt.training_monitor.forward_look import look
from minigpt.training_monitor.untouched import unwrapped
from tests.training_monitor.small_models import gpt, number_of_hooks, tokens


class Mlp(nn.Module):
    """A block with a residual, a norm that keeps statistics, dropout and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x_BD: Tensor) -> Tensor:
        return x_BD + self.dropout(self.down(F.relu(self.up(self.norm(x_BD)))))  # type: ignore[no-any-return]


@pytest.fixture
def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Mlp(), Mlp(), nn.Linear(4, 5))


@pytest.mark.parametrize("chunk", [1 << 22, 8])
@pytest.mark.parametrize("kind", ["open", "causal", "bool mask", "additive mask"])
def test_largest_logit_equals_the_whole_score_matrix(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_logits, "CHUNK_SCORES", chunk)
    torch.manual_seed(3)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    scores = query @ key.repeat_interleave(2, 1).mT / math.sqrt(8)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    mask = {"bool mask": causal[None, None].expand(2, 1, 5, 5), "additive mask": (~causal) * -65504.0}.get(
        kind
    )
    found = largest_logit(query, key, mask, kind == "causal")
    expected = scores if kind == "open" else scores.masked_fill(~causal, -torch.inf)
    assert found.item() == pytest.approx(expected.max().item(), abs=1e-6)
    assert largest_logit(query, key, scale=0.5).item() == pytest.approx(
        (0.5 * math.sqrt(8) * scores).max().item(), abs=1e-5
    )


def test_look_gives_activations_and_logits_by_block() -> None:
    model = gpt(num_kv_heads=2)
    streams: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, args, output: streams.append(output))
        for block in model.blocks
    ]
    logits = model(tokens())
    for handle in handles:
        handle.remove()
    found = look(model, lambda: model(tokens()))
    assert list(found.activation_rms) == ["blocks.0", "blocks.1"]
    for name, stream in zip(("blocks.0", "blocks.1"), streams, strict=True):
        assert found.activation_rms[name] == pytest.approx(stream.square().mean().sqrt().item(), rel=1e-5)
        assert found.activation_max[name] == pytest.approx(stream.abs().max().item(), rel=1e-6)
    assert found.output_logit_rms == pytest.approx(logits.square().mean().sqrt().item(), rel=1e-5)
    assert found.output_logit_max == pytest.approx(logits.abs().max().item(), rel=1e-6)
    assert found.log_partition == pytest.approx(logits.logsumexp(-1).mean().item(), rel=1e-6)
    assert found.dead_unit_fraction == {"blocks.0": 0.0, "blocks.1": 0.0}
    assert set(found.attention_logit_max) == {"blocks.0", "blocks.1"}
    assert found.first_non_finite is None


def test_attention_logit_grows_with_the_square_when_queries_and_keys_double() -> None:
    model = gpt()
    before = look(model, lambda: model(tokens())).attention_logit_max["blocks.1"]
    with torch.no_grad():
        model.blocks[1].get_submodule("attention.query").weight.mul_(2)  # type: ignore[operator]
        model.blocks[1].get_submodule("attention.key").weight.mul_(2)  # type: ignore[operator]
    assert look(model, lambda: model(tokens())).attention_logit_max["blocks.1"] == pytest.approx(
        4 * before, rel=1e-4
    )


def test_output_logits_are_seen_when_the_model_returns_only_its_loss() -> None:
    model = gpt()
    plain, summed = look(model, lambda: model(tokens())), look(model, lambda: model(tokens(), tokens()))
    assert summed.output_logit_rms == pytest.approx(plain.output_logit_rms)
    assert summed.log_partition == pytest.approx(plain.log_partition)


def test_dead_units_are_counted_when_their_bias_holds_them_down(mlp: nn.Sequential) -> None:
    with torch.no_grad():
        mlp.get_submodule("1.up").bias[:6] = -100.0  # type: ignore[operator]
    found = look(mlp, lambda: mlp(torch.randn(64, 4)))
    assert found.dead_unit_fraction["1"] == 0.75
    assert found.dead_unit_fraction["0"] < 0.5


def test_look_leaves_everything_as_it_was(mlp: nn.Sequential) -> None:
    inputs = torch.randn(8, 4)
    mlp(inputs).square().sum().backward()
    gradients = [parameter.grad for parameter in mlp.parameters()]
    copies = [None if gradient is None else gradient.clone() for gradient in gradients]
    state = {name: value.clone() for name, value in mlp.state_dict().items()}
    random_state = torch.get_rng_state()
    mlp.get_submodule("1").eval()
    look(mlp, lambda: mlp(inputs))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in mlp.state_dict().items())
    for parameter, gradient, copy in zip(mlp.parameters(), gradients, copies, strict=True):
        assert parameter.grad is gradient
        assert gradient is not None
        assert copy is not None
        assert torch.equal(gradient, copy)
    assert [module.training for module in mlp] == [True, False, True]
    assert number_of_hooks(mlp) == 0


def test_look_between_forward_and_backward_does_not_disturb_the_gradient() -> None:
    first, second = gpt(), gpt()
    for model, looks in ((first, False), (second, True)):
        loss = model(tokens(), tokens()).total
        if looks:
            look(model, lambda model=model: model(tokens()))  # type: ignore[misc]
        loss.backward()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_weights_still_get_gradients_when_the_look_shares_an_autocast() -> None:
    model = gpt()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        look(model, lambda: model(tokens()))
        model(tokens(), tokens()).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_look_sees_torchs_own_encoder(training: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    found = look(model, lambda: model(torch.randn(2, 6, 16)))
    assert set(found.activation_rms) == set(found.attention_logit_max) == {"layers.0", "layers.1"}
    assert set(found.dead_unit_fraction) == {"layers.0", "layers.1"}


def test_attention_by_hand_is_not_made_up() -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(4, 4)

        def forward(self, x_BTD: Tensor) -> Tensor:
            q_BTD = self.project(x_BTD)
            return torch.softmax(q_BTD @ x_BTD.mT, -1) @ x_BTD

    model = nn.Sequential(ByHand())
    assert look(model, lambda: model(torch.randn(2, 3, 4))).attention_logit_max == {}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_look_sees_hugging_face_models(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    if name == "llama":
        config = transformers.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, **shape,
        )  # fmt: skip
        model, layers = transformers.LlamaForCausalLM(config), {"model.layers.0", "model.layers.1"}
    else:
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=32, **shape)
        model, layers = transformers.GPT2LMHeadModel(config), {"transformer.h.0", "transformer.h.1"}
    ids = tokens() % 50
    found = look(model, lambda: model(input_ids=ids, labels=ids))
    assert (
        set(found.activation_rms) == set(found.attention_logit_max) == set(found.dead_unit_fraction) == layers
    )
    assert found.log_partition == pytest.approx(math.log(50), abs=0.1)


def test_compiled_model_is_looked_at_eagerly_and_not_compiled_anew() -> None:
    model, compilations = gpt(), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compilations.append(1)
        return graph.forward

    compiled: nn.Module = torch.compile(model, backend=backend, fullgraph=True)  # type: ignore[assignment]
    expected = look(model, lambda: model(tokens()))
    with torch.no_grad():
        compiled(tokens())
        count = len(compilations)
        assert look(compiled, lambda: compiled(tokens())) == expected
        compiled(tokens())
    assert len(compilations) == count == 1
    assert unwrapped(compiled) is model
    assert arm(compiled) is None


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_layers_have_their_plain_names_when_the_model_is_wrapped_for_ranks(one_rank: None) -> None:
    model = gpt()
    wrapped = DistributedDataParallel(model)
    found = look(wrapped, lambda: unwrapped(wrapped)(tokens()))
    assert found == look(model, lambda: model(tokens()))


def test_look_names_the_first_module_that_is_not_finite() -> None:
    model = gpt()
    with torch.no_grad():
        model.blocks[1].get_submodule("mlp").register_forward_hook(lambda module, args, output: output / 0)
    found = look(model, lambda: model(tokens()))
    assert found.first_non_finite == "blocks.1.mlp (div)"
    assert math.isnan(found.activation_rms["blocks.1"]) or math.isinf(found.activation_rms["blocks.1"])


def test_training_goes_on_when_attention_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> Tensor:
        raise RuntimeError("a layout of its own")

    monkeypatch.setattr("minigpt.training_monitor.forward_look.largest_logit", fails)
    model = gpt()
    found = look(model, lambda: model(tokens()))
    assert found.attention_logit_max == {}
    assert set(found.activation_rms) == {"blocks.0", "blocks.1"}
