"""What moved since the step before, and what happens when the model itself changes."""

from typing import Any

import pytest
import torch
from torch import nn

from minigpt.training_monitor.probes.model_probe import ModelProbe
from minigpt.training_monitor.probes.sample import SAMPLED, spread
from tests.training_monitor.test_probe_model import large_model, read


@torch.no_grad()
def move(parameter: Any) -> float:
    """Moves every element a little; the norm of that."""
    change = 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    before = parameter.clone()
    parameter.add_(change)
    return float((parameter - before).double().norm())


def test_update_norms_are_estimated_from_a_sample_and_exact_for_small_parameters() -> None:
    model = large_model()
    probe = ModelProbe(model)
    assert read(probe.measure()).parameters.update_norms is None
    moved = [move(parameter) for parameter in model.parameters()]
    reading = read(probe.measure())
    assert reading.parameters.update_norms == pytest.approx(moved, rel=0.15)
    small = [index for index, parameter in enumerate(model.parameters()) if parameter.numel() <= SAMPLED]
    assert reading.parameters.update_norms is not None
    for index in small:
        assert reading.parameters.update_norms[index] == pytest.approx(moved[index], rel=1e-5)
    assert reading.update_ratios["2"] == pytest.approx(
        (moved[4] ** 2 + moved[5] ** 2) ** 0.5 / reading.weight_norms["2"], rel=0.15
    )


def test_update_norm_is_exactly_zero_when_nothing_moved() -> None:
    model = large_model()
    probe = ModelProbe(model)
    probe.measure()
    move(model[1].weight)
    updates = read(probe.measure()).parameters.update_norms
    assert updates is not None
    assert [update == 0.0 for update in updates] == [True, True, False, True, True, True]
    assert read(probe.measure()).parameters.update_norms == [0.0] * 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_smallest_move_is_seen_in_every_precision(dtype: torch.dtype) -> None:
    model = nn.Linear(100, 100).to(dtype)
    probe = ModelProbe(model)
    probe.measure()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.ones_like(parameter)))
    updates = read(probe.measure()).parameters.update_norms
    assert updates is not None
    assert all(update > 0 for update in updates)


def test_one_sampled_nan_makes_the_update_nan() -> None:
    model = nn.Linear(3, 3)
    probe = ModelProbe(model)
    probe.measure()
    with torch.no_grad():
        model.weight.fill_(torch.nan)
    updates = read(probe.measure()).parameters.update_norms
    assert updates is not None
    assert updates[0] != updates[0]
    assert updates[1] == 0.0


@pytest.mark.parametrize("shape", [(1536, 384), (4096, 384), (512,), (64, 3, 7, 7), (1, 100_000), (257, 2)])
def test_sample_reaches_every_column_and_the_whole_length(shape: tuple[int, ...]) -> None:
    values = torch.arange(float(torch.Size(shape).numel())).view(shape)
    picked = spread(values)
    assert min(values.numel(), SAMPLED) / 2 < picked.numel() <= SAMPLED
    assert len(set(picked.tolist())) == picked.numel()
    if values.numel() > 2 * SAMPLED:
        assert picked.max() > 0.6 * values.numel()
        columns = len({value % shape[-1] for value in picked.tolist()})
        assert columns >= min(shape[-1], SAMPLED) * 0.6
    assert picked.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()


def test_sample_is_a_view_when_memory_is_out_of_order_or_has_gaps() -> None:
    turned = torch.randn(30, 40).t()
    gappy = torch.randn(30, 40)[:, :20]
    for tensor in (turned, gappy):
        picked = spread(tensor)
        tensor.fill_(7.0)
        assert (picked == 7.0).all()


def test_exchanged_parameter_is_not_taken_for_an_update() -> None:
    model = large_model()
    probe = ModelProbe(model)
    probe.measure()
    model[1].weight = nn.Parameter(torch.randn(100, 256))
    assert read(probe.measure()).parameters.update_norms is None
    assert read(probe.measure()).parameters.update_norms == [0.0] * 6


def test_parameter_whose_memory_moved_is_compared_by_value() -> None:
    model = large_model()
    probe = ModelProbe(model)
    probe.measure()
    weight = next(model.parameters())
    weight.data = weight.data.clone()
    assert read(probe.measure()).parameters.update_norms == [0.0] * 6
    weight.data += 1.0
    updates = read(probe.measure()).parameters.update_norms
    assert updates is not None
    assert updates[0] == pytest.approx((192 * 256) ** 0.5, rel=1e-3)


def test_facts_stay_the_same_object_until_something_is_frozen_added_or_optimized() -> None:
    model = large_model()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    probe = ModelProbe(model, [optimizer])
    facts = probe.measure().facts
    assert facts.names[:2] == ("0.weight", "0.bias")
    assert facts.groups == ("0", "0", "1", "1", "2", "2")
    assert facts.optimized == (True, True, False, False, False, False)
    assert probe.measure().facts is facts

    next(model.parameters()).requires_grad_(False)
    frozen = probe.measure()
    assert frozen.facts.trainable == (False, True, True, True, True, True)
    assert frozen.scales is not None

    optimizer.add_param_group({"params": list(model[1].parameters())})
    assert probe.measure().facts.optimized == (True, True, True, True, False, False)

    model.append(nn.Linear(3, 1))
    assert probe.measure().facts.names[-1] == "3.bias"


def test_tied_weights_are_measured_once_and_meta_and_empty_ones_not_at_all() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embedding"].weight
    model["meta"] = nn.Linear(3, 3, device="meta")
    model["empty"] = nn.ParameterDict({"weight": nn.Parameter(torch.zeros(0, 3))})
    assert ModelProbe(model).measure().facts.names == ("embedding.weight",)


def test_lazy_parameters_are_measured_from_their_first_forward_on() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1))
    probe = ModelProbe(model)
    assert len(probe.measure().facts) == 2
    model(torch.ones(1, 3))
    assert len(probe.measure().facts) == 4


def test_model_without_parameters_measures_nothing() -> None:
    probe = ModelProbe(nn.ReLU())
    assert read(probe.measure()).grad_norm == 0.0
    assert read(probe.measure()).parameters.update_norms == []


def test_restored_probe_measures_what_the_old_one_would_have() -> None:
    model = large_model()
    old, new = ModelProbe(model, weights_every=3), ModelProbe(model, weights_every=3)
    old.measure()
    old.measure()
    new.load_state_dict(old.state_dict())
    for parameter in model.parameters():
        move(parameter)
        parameter.grad = torch.ones_like(parameter)
    for _ in range(4):
        assert torch.equal(new.measure().vector, old.measure().vector)


def test_state_of_another_model_is_left_aside() -> None:
    probe = ModelProbe(large_model())
    other = ModelProbe(nn.Linear(2, 2))
    other.measure()
    probe.load_state_dict(other.state_dict())
    assert read(probe.measure()).parameters.update_norms is None
