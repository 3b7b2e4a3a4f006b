"""Groups, gradient norms on the device, and their way to the host."""

import math

import pytest
import torch
from torch import nn

from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.groups import parameter_groups_by_layer, plain_name
from minigpt.training_monitor.norms import GradientNorms


def test_groups_are_the_layers_of_a_gpt() -> None:
    names = [
        "embedding.weight",
        "blocks.0.attention.query.weight",
        "blocks.10.mlp.up.weight",
        "norm.weight",
        "head.weight",
    ]
    assert list(parameter_groups_by_layer(names).values()) == [
        "embedding",
        "blocks.0",
        "blocks.10",
        "norm",
        "head",
    ]


def test_groups_keep_the_modules_beside_a_nested_stack_apart() -> None:
    names = [
        "transformer.wte.weight",
        "transformer.h.3.ln_1.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ]
    expected = ["transformer.wte", "transformer.h.3", "transformer.ln_f", "lm_head"]
    assert list(parameter_groups_by_layer(names).values()) == expected


def test_groups_forget_the_prefixes_of_wrappers() -> None:
    assert plain_name("module._orig_mod.blocks.0.norm.weight") == "blocks.0.norm.weight"
    assert parameter_groups_by_layer(["_orig_mod.0.weight", "weight"]) == {
        "_orig_mod.0.weight": "0",
        "weight": "weight",
    }


def model_with_gradients() -> nn.ModuleDict:
    model = nn.ModuleDict(
        {"embedding": nn.Linear(2, 1), "blocks": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])}
    )
    for parameter, value in zip(model.parameters(), (3.0, 4.0, 1.0, 2.0, 5.0, 0.0), strict=True):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = value
    return model


def test_norms_equal_the_ones_worked_out_by_hand() -> None:
    packed = GradientNorms(model_with_gradients().named_parameters()).measure()
    total, groups = packed.read(packed.vector.tolist())
    assert groups == pytest.approx({"embedding": 5.0, "blocks.0": math.sqrt(5), "blocks.1": 5.0})
    assert total == pytest.approx(math.sqrt(55))
    assert packed.vector.dtype == torch.float32
    assert packed.total.shape == ()


def test_norms_equal_torchs_own_total_on_a_random_model() -> None:
    model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 10))
    model(torch.randn(5, 30)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total = GradientNorms(model.named_parameters()).measure().total
    assert total.item() == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_keep_a_non_finite_gradient_in_its_own_group(bad: float) -> None:
    model = model_with_gradients()
    gradient = model["blocks"][0].weight.grad  # type: ignore[index]
    assert isinstance(gradient, torch.Tensor)
    gradient.fill_(bad)
    packed = GradientNorms(model.named_parameters()).measure()
    total, groups = packed.read(packed.vector.tolist())
    assert not math.isfinite(total)
    assert [name for name, norm in groups.items() if not math.isfinite(norm)] == ["blocks.0"]
    assert groups["embedding"] == pytest.approx(5.0)


def test_norms_leave_out_what_has_no_gradient_and_notice_when_that_changes() -> None:
    model = model_with_gradients()
    norms = GradientNorms(model.named_parameters())
    norms.measure()
    for parameter in model["embedding"].parameters():
        parameter.grad = None
    packed = norms.measure()
    assert packed.group_names == ("blocks.0", "blocks.1")
    assert packed.total.item() == pytest.approx(math.sqrt(30))


def test_norms_are_zero_without_groups_when_no_backward_has_run() -> None:
    packed = GradientNorms(nn.Linear(2, 2).named_parameters()).measure()
    assert packed.read(packed.vector.tolist()) == (0.0, {})


def test_norms_understand_sparse_and_low_precision_gradients() -> None:
    sparse = nn.Embedding(4, 1, sparse=True)
    sparse(torch.tensor([1, 1, 2])).sum().backward()
    assert GradientNorms(sparse.named_parameters()).measure().total.item() == pytest.approx(math.sqrt(5))
    half = nn.Linear(1, 1, bias=False).half()
    half.weight.grad = torch.full_like(half.weight, 300.0)
    # 300 squared overflows fp16: the sum is in fp32
    assert GradientNorms(half.named_parameters()).measure().total.item() == pytest.approx(300.0)


def test_measuring_leaves_gradients_bit_identical() -> None:
    model = model_with_gradients()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    GradientNorms(model.named_parameters()).measure()
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_read_is_at_once_on_the_cpu() -> None:
    reads: DeferredRead[str] = DeferredRead(torch.device("cpu"))
    assert reads.push("first", torch.tensor([1.0, 2.0])) == ("first", [1.0, 2.0])
    assert reads.drain() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_read_is_one_step_late_and_without_a_sync_on_cuda() -> None:
    device = torch.device("cuda")
    model = nn.Linear(3, 3).to(device)
    norms = GradientNorms(model.named_parameters())
    reads: DeferredRead[int] = DeferredRead(device)
    model(torch.ones(1, 3, device=device)).sum().backward()
    norms.measure()  # the layout is made once
    reads.push(0, norms.measure().vector)
    reads.drain()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = [reads.push(step, norms.measure().vector) for step in range(1, 6)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got[0] is None
    assert [entry[0] for entry in got[1:] if entry is not None] == [1, 2, 3, 4]
    last = reads.drain()
    assert last is not None
    assert last[1][0] == pytest.approx(norms.measure().total.item())
