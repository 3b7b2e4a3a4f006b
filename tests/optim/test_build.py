import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.optim.build import apply_update, build_optimizers, set_learning_rate, split_parameters
from minigpt.optim.config import OptimizerConfig

NAMES = ("adamw", "muon")
GO, CALL_OFF = torch.tensor(0.0), torch.tensor(1.0)


def tiny_model(*, tied: bool = True, tables: int = 0) -> GPT:
    config = ModelConfig(
        num_layers=2,
        hidden_size=8,
        num_heads=2,
        context_length=8,
        tie_embeddings=tied,
        qk_norm=True,
        value_embedding_layers=tables,
    )
    model = GPT(config, 16)
    initialize(model, seed=0)
    return model


def optimizers_of(model: nn.Module, name: str, **settings: object) -> list[Optimizer]:
    return build_optimizers(model, OptimizerConfig.model_validate({"name": name, **settings}))


def give_gradients(model: nn.Module, seed: int = 0, fill: float | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient if fill is None else torch.full_like(gradient, fill)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_split_sorts_every_parameter_once_when_tied_and_untied(tied: bool) -> None:
    model = tiny_model(tied=tied)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kinds = {
        kind: [names[id(parameter)] for parameter in parameters]
        for kind, parameters in split_parameters(model).items()
    }
    assert kinds["token"] == ["embedding.weight"] + ([] if tied else ["head.weight"])
    assert len(kinds["matrix"]) == 2 * 7
    assert all(name.endswith("norm.weight") for name in kinds["scale"])
    assert sorted(name for kind in kinds.values() for name in kind) == sorted(names.values())


@pytest.mark.parametrize("name", NAMES)
def test_value_embeddings_are_learned_as_embeddings_and_their_gates_as_scales(name: str) -> None:
    model = tiny_model(tables=1)
    kinds = split_parameters(model)
    named = dict(model.named_parameters())
    table, gate = named["value_embeddings.1.table.weight"], named["value_embeddings.1.gate"]
    assert [id(each) for each in kinds["token"]] == [id(model.embedding.weight), id(table)]
    assert id(gate) in map(id, kinds["scale"])
    for optimizer in optimizers_of(model, name, embedding_learning_rate_ratio=6):
        for group in optimizer.param_groups:
            if id(table) in map(id, group["params"]):
                assert isinstance(optimizer, torch.optim.AdamW)
                assert (group["lr_ratio"], group["weight_decay"]) == (6.0, 0.0)
            if id(gate) in map(id, group["params"]):
                assert (group["lr_ratio"], group["weight_decay"]) == (1.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_optimizers_own_each_trainable_parameter_once_and_decay_only_matrices(name: str, tied: bool) -> None:
    model = tiny_model(tied=tied)
    model.blocks[0].requires_grad_(False)
    optimizers = optimizers_of(model, name, weight_decay=0.3)
    owned = [
        (id(parameter), group["weight_decay"])
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(key for key, _ in owned) == sorted(trainable)
    for key, decay in owned:
        is_matrix = trainable[key].startswith("blocks.") and "norm" not in trainable[key]
        assert decay == (0.3 if is_matrix else 0.0), trainable[key]


def test_set_learning_rate_gives_the_embedding_its_ratio_when_it_has_one() -> None:
    model = tiny_model(tied=False)
    for name in NAMES:
        optimizers = optimizers_of(model, name, embedding_learning_rate_ratio=6)
        set_learning_rate(optimizers, 0.5)
        token = {id(model.embedding.weight)} | {id(p) for p in model.parameters() if p.shape == (16, 8)}
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            assert group["lr"] == (3.0 if id(group["params"][0]) in token else 0.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gradient", [None, float("nan"), float("inf")])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_called_off_update_changes_nothing_when_gradients_are_what_they_may(
    name: str, gradient: float | None, steps_before: int
) -> None:
    """Pins what torch does not document: fused AdamW leaves everything alone when found_inf is 1."""
    model, reference = tiny_model(), tiny_model()
    runs = [(model, optimizers_of(model, name)), (reference, optimizers_of(reference, name))]
    for seed in range(steps_before):
        for owner, optimizers in runs:
            give_gradients(owner, seed)
            apply_update(optimizers, GO)
    before = weights(model)
    states = copy.deepcopy([optimizer.state_dict()["state"] for optimizer in runs[0][1]])

    give_gradients(model, seed=9, fill=gradient)
    apply_update(runs[0][1], CALL_OFF)

    torch.testing.assert_close(weights(model), before, rtol=0, atol=0)
    if steps_before:
        after = [optimizer.state_dict()["state"] for optimizer in runs[0][1]]
        torch.testing.assert_close(after, states, rtol=0, atol=0)
    # Nothing hidden was touched either: the next update is the one of a run that never saw the bad step.
    for owner, optimizers in runs:
        give_gradients(owner, seed=5)
        apply_update(optimizers, GO)
    torch.testing.assert_close(weights(model), weights(reference), rtol=0, atol=0)


def test_update_is_torchs_own_adamw_when_not_called_off() -> None:
    model, reference = tiny_model(), tiny_model()
    optimizers = optimizers_of(model, "adamw", learning_rate=0.01, weight_decay=0.1)
    kinds = split_parameters(reference)
    plain = torch.optim.AdamW(
        [
            {"params": kinds["matrix"], "weight_decay": 0.1},
            {"params": kinds["token"] + kinds["scale"], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
        foreach=False,
    )
    for seed in range(3):
        give_gradients(model, seed)
        give_gradients(reference, seed)
        apply_update(optimizers, GO)
        plain.step()
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-5, atol=1e-7)


def test_muon_moves_matrices_as_far_as_adamw_would_when_learning_rates_agree() -> None:
    model = tiny_model()
    optimizers = optimizers_of(model, "muon", learning_rate=0.01, weight_decay=0.0)
    before = weights(model)
    give_gradients(model)
    apply_update(optimizers, GO)
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:
            moved = (parameter.detach() - before[name]).square().mean().sqrt().item()
            assert 0.1 < moved / 0.01 < 0.4, name  # AdamW's updates have an RMS of 0.2-0.4 (arXiv 2502.16982)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_goes_on_bit_for_bit_when_its_state_went_through_a_file(
    name: str, tmp_path: object
) -> None:
    model = tiny_model()
    optimizers = optimizers_of(model, name)
    for seed in range(2):
        give_gradients(model, seed)
        apply_update(optimizers, GO)
    path = f"{tmp_path}/state.pt"
    torch.save([model.state_dict(), [optimizer.state_dict() for optimizer in optimizers]], path)

    restored = tiny_model()
    others = optimizers_of(restored, name)
    saved_weights, saved_states = torch.load(path)
    restored.load_state_dict(saved_weights)
    for optimizer, state in zip(others, saved_states, strict=True):
        optimizer.load_state_dict(state)
    for owner, owned in ((model, optimizers), (restored, others)):
        give_gradients(owner, seed=7)
        set_learning_rate(owned, 0.02)
        apply_update(owned, GO)
    torch.testing.assert_close(weights(restored), weights(model), rtol=0, atol=0)
