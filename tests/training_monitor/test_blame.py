"""The first NaN or infinity is put down to the module, function, weight or gradient that made it."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.training_monitor.blame import Blame, blame


def gpt() -> GPT:
    model = GPT(ModelConfig(num_layers=2, hidden_size=16, num_heads=2, context_length=8), 64)
    initialize(model, 0)
    return model


def tokens() -> Tensor:
    return torch.randint(0, 64, (4, 8), generator=torch.Generator().manual_seed(1))


def blamed(model: GPT) -> Blame:
    return blame(model, lambda: model(tokens(), tokens()).total)


class SquareRoot(nn.Module):
    """Finite forward, infinite slope at 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sqrt((x - x.detach()).square())


def test_healthy_step_is_not_reproduced() -> None:
    found = blamed(gpt())
    assert found.phase == "not reproduced"
    assert not found.found
    assert Blame(**found.as_data()) == found


def test_weights_are_blamed_when_one_of_them_is_nan() -> None:
    model = gpt()
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.down.weight")[3, 2] = torch.nan
    found = blamed(model)
    assert (found.phase, found.parameter, found.module) == (
        "weights",
        "blocks.1.mlp.down.weight",
        "blocks.1.mlp.down",
    )
    assert (found.non_finite, found.index) == (1, (3, 2))


def test_module_is_blamed_when_it_makes_infinity_in_one_sequence() -> None:
    model = gpt()

    def spoil(module: nn.Module, args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[2, 5, 0] = torch.inf
        return output

    model.get_submodule("blocks.0.mlp.gate").register_forward_hook(spoil)
    found = blamed(model)
    assert (found.phase, found.module, found.kind) == ("forward", "blocks.0.mlp.gate", "Linear")
    assert (found.index, found.rows_hit, found.non_finite) == ((2, 5, 0), 1, 1)
    assert found.input_max is not None
    assert found.input_max < 10
    assert "blocks.0.mlp.gate" in found.sentence()


def test_input_is_blamed_when_the_model_is_fed_nan() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    inputs = torch.ones(2, 3)
    inputs[1, 1] = torch.nan
    found = blame(model, lambda: model(inputs).sum())
    assert (found.phase, found.index) == ("input", (1, 1))


def test_loss_is_blamed_when_it_takes_the_logarithm_of_zero() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(-100)
    found = blame(model, lambda: model(torch.ones(2, 3)).log().mean())
    assert (found.phase, found.module, found.function) == ("loss", "", "log")


def test_backward_is_blamed_when_only_a_gradient_is_infinite() -> None:
    model = gpt()
    model.blocks[1].mlp_norm = nn.Sequential(model.blocks[1].get_submodule("mlp_norm"), SquareRoot())
    found = blamed(model)
    assert (found.phase, found.module, found.function) == ("backward", "blocks.1.mlp_norm.1", "sqrt")
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_own_hook_is_blamed_when_it_spoils_the_gradient() -> None:
    model = gpt()
    parameter = model.get_parameter("blocks.0.mlp.up.weight")
    parameter.register_hook(lambda gradient: gradient * torch.nan)  # type: ignore[no-untyped-call]
    found = blamed(model)
    assert (found.phase, found.parameter) == ("backward", "blocks.0.mlp.up.weight")


def test_overflow_of_fp16_is_blamed_and_fp32_is_not() -> None:
    model = gpt()
    with torch.no_grad():
        model.get_parameter("blocks.1.mlp.up.weight").mul_(1e6)
        model.get_parameter("blocks.1.mlp.gate.weight").mul_(1e3)

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            return model(tokens(), tokens()).total  # type: ignore[no-any-return]

    assert not blamed(model).found
    found = blame(model, forward)
    assert (found.phase, found.dtype) == ("forward", "float16")
    assert found.module in ("blocks.1.mlp", "blocks.1.mlp.up")


def test_overflow_of_the_backward_is_found_when_the_scaler_scales_too_much() -> None:
    model = gpt()

    def forward() -> Tensor:
        with torch.autocast("cpu", dtype=torch.float16):
            return model(tokens(), tokens()).total  # type: ignore[no-any-return]

    assert not blame(model, forward).found
    found = blame(model, forward, scale=2.0**24)
    assert (found.phase, found.dtype) == ("backward", "float16")


def test_masks_of_minus_infinity_are_innocent() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.divide = nn.Linear(4, 4), nn.Identity()

        def forward(self, x_BTD: Tensor) -> Tensor:
            T = x_BTD.shape[1]
            mask_TT = torch.full((T, T), -torch.inf).triu(1)
            scores = self.project(x_BTD) @ x_BTD.mT + mask_TT
            scores = scores.masked_fill(mask_TT < -1, float("-inf"))
            return self.divide(torch.softmax(scores, -1) @ x_BTD)  # type: ignore[no-any-return]

    model = nn.Sequential(Attention())
    inputs = torch.randn(2, 3, 4)
    assert not blame(model, lambda: model(inputs).sum()).found
    model.get_submodule("0.divide").register_forward_hook(lambda module, args, output: output / 0)
    found = blame(model, lambda: model(inputs).sum())
    assert (found.module, found.function) == ("0.divide", "div")


def test_softmax_is_blamed_when_a_row_is_masked_altogether() -> None:
    class Masked(nn.Module):
        def forward(self, x_BT: Tensor) -> Tensor:
            return F.softmax(x_BT.masked_fill(torch.ones_like(x_BT, dtype=torch.bool), -torch.inf), -1)

    model = nn.Sequential(nn.Linear(3, 3), Masked())
    found = blame(model, lambda: model(torch.ones(2, 3)).sum())
    assert (found.phase, found.module, found.function) == ("forward", "1", "softmax")


def test_nan_that_never_reaches_the_loss_is_nobodys_fault() -> None:
    class Padded(nn.Module):
        def forward(self, x_BT: Tensor) -> Tensor:
            broken = (x_BT.detach() * 0).log() * 0
            return x_BT + torch.nan_to_num(broken)

    model = nn.Sequential(nn.Linear(3, 3), Padded())
    assert not blame(model, lambda: model(torch.ones(2, 3)).sum()).found


def test_blame_leaves_everything_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), SquareRoot())
    inputs = torch.randn(8, 3)
    model.get_submodule("0")(inputs).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    copies = [None if each is None else each.clone() for each in gradients]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert blame(model, lambda: model(inputs).sum()).phase == "backward"
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for parameter, gradient, copy in zip(model.parameters(), gradients, copies, strict=True):
        assert parameter.grad is gradient
        assert (gradient is None) == (copy is None)
        assert gradient is None or (copy is not None and torch.equal(gradient, copy))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_graph_is_let_go_of_when_the_blame_is_known() -> None:
    model = gpt()
    held: list[weakref.ref[Tensor]] = []
    model.blocks[0].register_forward_hook(lambda module, args, output: held.append(weakref.ref(output)))
    blamed(model)
    assert len(held) == 1
    assert held[0]() is None


class DropsItsLogarithm(nn.Module):
    """Makes minus infinity and lets go of it, as T5's relative positions do; then `spoil` is called."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.positions, self.last, self.spoil = nn.Identity(), nn.Linear(2, 1), spoil
        self.positions.register_forward_hook(lambda module, args, x: torch.where(x > 0, x.log(), x).long())

    def forward(self, x: Tensor) -> Tensor:
        places = self.positions(x * 0)
        spoilt: Tensor = self.spoil(self.last(x + places))
        return spoilt.sum()


def test_number_that_came_to_nothing_is_not_blamed_when_a_later_one_spoils_the_loss() -> None:
    model = DropsItsLogarithm(lambda x: x)
    model.last.register_forward_hook(lambda module, args, output: output * torch.nan)
    found = blame(model, lambda: model(torch.ones(3, 2)))
    assert (found.phase, found.module, found.function) == ("forward", "last", "mul")


def test_minus_infinity_is_blamed_when_what_becomes_of_it_spoils_the_loss() -> None:
    model = DropsItsLogarithm(lambda x: x + (x.data.mT * 0).log().mT * 0)
    found = blame(model, lambda: model(torch.ones(3, 2)))
    assert (found.module, found.kind, found.function) == ("", "DropsItsLogarithm", "log")
