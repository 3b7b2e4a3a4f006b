"""What is measured of a model once a step, against numbers worked out by hand and torch's own."""

import math

import pytest
import torch
from torch import nn

from minigpt.training_monitor.probes.model_probe import Measurement, ModelProbe, Reading


def model_with_gradients() -> nn.ModuleDict:
    model = nn.ModuleDict(
        {"embedding": nn.Linear(2, 1), "blocks": nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])}
    )
    for parameter, value in zip(model.parameters(), (3.0, 4.0, 1.0, 2.0, 5.0, 0.0), strict=True):
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = value
    return model


def large_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(192, 256), nn.Linear(256, 100), nn.Linear(100, 3))


def read(measurement: Measurement) -> Reading:
    return measurement.read(measurement.vector.tolist())


def test_gradient_norms_equal_the_ones_worked_out_by_hand() -> None:
    measurement = ModelProbe(model_with_gradients()).measure()
    reading = read(measurement)
    assert reading.group_norms == pytest.approx({"embedding": 5.0, "blocks.0": math.sqrt(5), "blocks.1": 5.0})
    assert reading.grad_norm == pytest.approx(math.sqrt(55))
    assert reading.parameters.grad_norms == pytest.approx([3.0, 4.0, 1.0, 2.0, 5.0, 0.0])
    assert measurement.vector.dtype == torch.float32
    assert measurement.total.shape == ()


def test_total_and_weight_norms_equal_torchs_own_on_a_random_model() -> None:
    model = large_model()
    model(torch.randn(5, 192)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    reading = read(ModelProbe(model).measure())
    assert reading.grad_norm == pytest.approx(torch.nn.utils.get_total_norm(gradients).item(), rel=1e-6)
    norms = [parameter.double().norm().item() for parameter in model.parameters()]
    assert reading.parameters.weight_norms == pytest.approx(norms, rel=1e-6)
    assert reading.weight_norms["1"] == pytest.approx(math.hypot(*norms[2:4]), rel=1e-6)


def test_measuring_twice_gives_the_same_bits_on_any_number_of_threads() -> None:
    model = large_model()
    model(torch.randn(5, 192)).square().sum().backward()
    threads, vectors = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            vectors.append(ModelProbe(model).measure().vector)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradient_stays_in_its_own_group(bad: float) -> None:
    model = model_with_gradients()
    gradient = model["blocks"][0].weight.grad  # type: ignore[index]
    assert isinstance(gradient, torch.Tensor)
    gradient.fill_(bad)
    reading = read(ModelProbe(model).measure())
    assert not math.isfinite(reading.grad_norm)
    bad_groups = [name for name, norm in reading.group_norms.items() if not math.isfinite(norm)]
    assert bad_groups == ["blocks.0"]
    assert reading.group_norms["embedding"] == pytest.approx(5.0)


def test_absent_gradients_are_none_and_noticed_when_that_changes() -> None:
    model = model_with_gradients()
    probe = ModelProbe(model)
    probe.measure()
    for parameter in model["embedding"].parameters():
        parameter.grad = None
    reading = read(probe.measure())
    assert list(reading.group_norms) == ["blocks.0", "blocks.1"]
    assert reading.parameters.grad_norms[:3] == [None, None, pytest.approx(1.0)]
    assert reading.grad_norm == pytest.approx(math.sqrt(30))


def test_norm_is_zero_without_groups_when_no_backward_has_run() -> None:
    reading = read(ModelProbe(nn.Linear(2, 2)).measure())
    assert (reading.grad_norm, reading.group_norms) == (0.0, {})
    assert reading.parameters.grad_norms == [None, None]


def test_sparse_low_precision_and_complex_values_are_understood() -> None:
    sparse = nn.Embedding(4, 1, sparse=True)
    sparse(torch.tensor([1, 1, 2])).sum().backward()
    assert read(ModelProbe(sparse).measure()).grad_norm == pytest.approx(math.sqrt(5))
    half = nn.Linear(1, 1, bias=False).half()
    half.weight.grad = torch.full_like(half.weight, 300.0)
    # 300 squared overflows fp16: the sum is in fp32
    assert read(ModelProbe(half).measure()).grad_norm == pytest.approx(300.0)
    turned = nn.Linear(1, 1, bias=False, dtype=torch.complex64)
    turned.weight.grad = torch.full_like(turned.weight, 3 + 4j)
    assert read(ModelProbe(turned).measure()).grad_norm == pytest.approx(5.0)


def test_mixed_precisions_are_measured_together_in_order() -> None:
    model = nn.Sequential(nn.Linear(300, 200).bfloat16(), nn.Linear(2, 2), nn.Linear(3, 3).double())
    for value, parameter in enumerate(model.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, value)
    expected = [p.grad.double().norm().item() for p in model.parameters() if p.grad is not None]
    assert read(ModelProbe(model).measure()).parameters.grad_norms == pytest.approx(expected, rel=1e-4)


def test_measuring_leaves_gradients_and_weights_bit_identical() -> None:
    model = model_with_gradients()
    held = [tensor for p in model.parameters() for tensor in (p, p.grad) if tensor is not None]
    before = [tensor.clone() for tensor in held]
    probe = ModelProbe(model)
    probe.measure(count_zeros=True)
    probe.measure()
    assert all(torch.equal(one, other) for one, other in zip(before, held, strict=True))


def test_zero_fractions_are_counted_on_their_beat_and_when_asked_for() -> None:
    model = nn.Sequential(nn.Linear(192, 256), nn.Linear(4, 1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = next(model.parameters()).grad
    assert weight is not None
    weight[:, ::2] = 1.0
    model[1].bias.grad = None
    probe = ModelProbe(model)
    seen = [read(probe.measure()).parameters.zero_fractions for _ in range(17)]
    assert [index for index, fractions in enumerate(seen) if fractions is not None] == [0, 16]
    # every other column is set: the sample must not keep to some columns
    assert seen[0] == [pytest.approx(0.5, abs=0.02), 1.0, 1.0, None]
    assert read(probe.measure(count_zeros=True)).parameters.zero_fractions == seen[0]


def test_moved_fractions_are_counted_on_the_slow_beat() -> None:
    model = nn.Sequential(nn.Linear(192, 256), nn.Linear(4, 1))
    weight = next(model.parameters())
    probe = ModelProbe(model)
    seen = []
    for _ in range(18):
        seen.append(read(probe.measure()).parameters.moved_fractions)
        with torch.no_grad():
            weight[:, ::2] += 1.0
    assert [index for index, fractions in enumerate(seen) if fractions is not None] == [16]
    assert seen[16] == [pytest.approx(0.5, abs=0.02), 0.0, 0.0, 0.0]
