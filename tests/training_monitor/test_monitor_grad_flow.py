"""check_grad_flow: its lists, its printed form, and that it leaves everything as it was."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from minigpt.training_monitor import check_grad_flow


class Example(nn.Module):
    """One layer that learns, one whose output is multiplied by 0, one frozen, one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(2, 2, bias=False)
        self.layer2 = nn.Linear(2, 2, bias=False)
        self.frozen_layer = nn.Linear(2, 2, bias=False)
        self.unused = nn.Linear(2, 2, bias=False)
        for number, layer in enumerate((self.layer1, self.layer2, self.frozen_layer, self.unused)):
            nn.init.constant_(layer.weight, number + 1.0)
        self.frozen_layer.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer1(x).sum() + 0.0 * self.layer2(x).sum() + self.frozen_layer(x).sum())


X = torch.tensor([[0.5, -0.25]])
LISTS = {
    "ok": ["layer1.weight"],
    "zero": ["layer2.weight"],
    "none": ["frozen_layer.weight", "unused.weight"],
}
ZH = """============================================================
➡️ [检查开始] 反向传播中梯度传导情况...
[✅ OK  ] layer1.weight: grad max=5.0000e-01, min=2.5000e-01
[⚠️ ZERO] layer2.weight: grad == 0
[❌ NONE ] frozen_layer.weight: grad is None
[❌ NONE ] unused.weight: grad is None
------------------------------------------------------------
✅ 有效梯度参数数：1
⚠️ 梯度为0的参数数：1
❌ grad is None 的参数数：2
============================================================
ℹ️ requires_grad=False 的参数：frozen_layer.weight
"""
EN = """============================================================
➡️ [Check started] How gradients flow in the backward pass...
[✅ OK  ] layer1.weight: grad max=5.0000e-01, min=2.5000e-01
[⚠️ ZERO] layer2.weight: grad == 0
[❌ NONE ] frozen_layer.weight: grad is None
[❌ NONE ] unused.weight: grad is None
------------------------------------------------------------
✅ Parameters with a gradient: 1
⚠️ Parameters with zero gradient: 1
❌ Parameters with grad is None: 2
============================================================
ℹ️ requires_grad=False: frozen_layer.weight
"""


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def test_check_sorts_every_parameter_when_given_a_loss() -> None:
    model = Example()
    assert check_grad_flow(model, model(X), verbose=False) == LISTS


def test_check_sorts_every_parameter_when_backward_has_run() -> None:
    model = Example()
    backward(model(X))
    assert check_grad_flow(model, verbose=False) == LISTS


def test_check_prints_the_english_form_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    model = Example()
    check_grad_flow(model, model(X))
    assert capsys.readouterr().out == EN


def test_check_prints_the_chinese_form_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    model = Example()
    check_grad_flow(model, model(X), lang="zh")
    assert capsys.readouterr().out == ZH


def test_check_prints_nothing_when_not_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    model = Example()
    check_grad_flow(model, model(X), False)
    assert capsys.readouterr().out == ""


def test_check_leaves_gradients_and_the_callers_backward_as_they_were() -> None:
    model = Example()
    kept = torch.full((2, 2), 7.0)
    model.layer2.weight.grad = kept
    loss = model(X)
    check_grad_flow(model, loss, verbose=False)
    assert model.layer2.weight.grad is kept
    assert torch.equal(kept, torch.full((2, 2), 7.0))
    assert model.layer1.weight.grad is None
    backward(loss)
    assert [parameter.grad is None for parameter in model.parameters()] == [False, False, True, True]


def test_check_leaves_the_random_state_and_training_mode_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    loss = model(X).sum()
    before = torch.get_rng_state()
    check_grad_flow(model, loss, verbose=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_check_works_when_gradients_are_switched_off_around_it() -> None:
    model = Example()
    loss = model(X)
    with torch.no_grad():
        assert check_grad_flow(model, loss, verbose=False) == LISTS


def test_check_explains_a_loss_that_is_not_connected(capsys: pytest.CaptureFixture[str]) -> None:
    model = Example()
    lists = check_grad_flow(model, model(X).detach())
    assert len(lists["none"]) == 4
    out = capsys.readouterr().out
    assert "loss.requires_grad=False, loss.grad_fn=None" in out
    assert "detach()" in out


def test_check_explains_a_loss_of_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    check_grad_flow(nn.Linear(2, 1), Example()(X), lang="zh")
    out = capsys.readouterr().out
    assert "loss.requires_grad=True，loss.grad_fn=AddBackward0" in out
    assert "没有本模型需要梯度的参数" in out


def test_check_explains_when_everything_is_frozen(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 1).requires_grad_(False)
    assert check_grad_flow(model, model(X).sum())["none"] == ["weight", "bias"]
    assert "every parameter has requires_grad=False" in capsys.readouterr().out


def test_check_says_that_no_backward_has_run(capsys: pytest.CaptureFixture[str]) -> None:
    check_grad_flow(Example())
    assert "no backward has run" in capsys.readouterr().out


def test_check_reads_what_is_there_when_the_losss_backward_has_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    loss = model(X).sum()
    backward(loss)
    assert len(check_grad_flow(model, loss)["ok"]) == 4
    assert "backward had already run on this loss" in capsys.readouterr().out


def test_check_raises_with_the_way_out_when_the_graph_and_the_gradients_are_gone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    loss = model(X).sum()
    backward(loss)
    model.zero_grad()
    with pytest.raises(RuntimeError, match=r"before loss\.backward\(\)"):
        check_grad_flow(model, loss)


def test_check_refuses_a_loss_that_is_not_one_number() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"loss has shape \(1, 3\)"):
        check_grad_flow(model, model(X))


def test_check_counts_nan_as_ok_and_reports_it(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 1, bias=False)
    lists = check_grad_flow(model, model(X).sum() * float("nan"))
    assert lists == {"ok": ["weight"], "zero": [], "none": []}
    out = capsys.readouterr().out
    assert "[✅ OK  ] weight: grad max=nan, min=nan" in out
    assert "❌ NaN or infinity in the gradient of: weight" in out


def test_check_names_a_shared_parameter_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(3, 2)
            self.head = nn.Linear(2, 3, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return cast(Tensor, self.head(self.embedding(ids)).square().mean())

    model = Tied()
    loss = model(torch.tensor([0, 1]))
    assert check_grad_flow(model, loss, verbose=False)["ok"] == ["embedding.weight"]


def test_check_understands_sparse_gradients() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    loss = model(torch.tensor([1, 1])).sum()
    assert check_grad_flow(model, loss, verbose=False)["ok"] == ["weight"]
    backward(loss)
    assert check_grad_flow(model, verbose=False)["ok"] == ["weight"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_check_works_in_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 1).to(dtype)
    assert len(check_grad_flow(model, model(X.to(dtype)).sum(), verbose=False)["ok"]) == 2


def test_check_has_nothing_to_sort_when_the_model_has_no_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_grad_flow(nn.ReLU(), X.sum()) == {"ok": [], "zero": [], "none": []}
    assert "The model has no parameters." in capsys.readouterr().out


def test_check_puts_an_empty_parameter_among_the_zeros() -> None:
    model = nn.ParameterDict({"empty": nn.Parameter(torch.zeros(0)), "full": nn.Parameter(torch.ones(2))})
    lists = check_grad_flow(model, model["empty"].sum() + model["full"].sum(), verbose=False)
    assert lists == {"ok": ["full"], "zero": ["empty"], "none": []}
