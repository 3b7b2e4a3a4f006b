import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.optim.muon import Muon, _batches
from minigpt.optim.orthogonal import CLASSIC, normalize_, orthogonalize

SHAPES = [(24, 24), (24, 24), (40, 24), (24, 40), (24, 24), (40, 24)]
OFF, ON = torch.tensor(1.0), torch.tensor(0.0)


def matrices(shapes: list[tuple[int, int]] = SHAPES, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in parameters:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def values(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def moments(optimizer: Optimizer) -> list[Tensor]:
    """In the order of the parameters: those of a state are in the order of their first update."""
    parameters = optimizer.param_groups[0]["params"]
    return [optimizer.state[parameter]["momentum_buffer"].clone() for parameter in parameters]


def normalized(given: Tensor) -> Tensor:
    return torch.stack([normalize_(matrix.clone()) for matrix in given])


def update_on_the_device(optimizer: Muon, found_inf: Tensor) -> None:
    """As on a GPU, where no value is read."""
    group = optimizer.param_groups[0]
    with torch.no_grad():
        for batch in _batches(group["params"]):
            optimizer._update(batch, group["lr"], group["weight_decay"], group["momentum"], found_inf)


def test_updates_are_torchs_muons_when_rounding_is_allowed_for() -> None:
    ours, theirs = matrices(), matrices()
    optimizer = Muon(ours, lr=0.1, weight_decay=0.3)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.3, adjust_lr_fn="match_rms_adamw")
    pairs: list[tuple[list[nn.Parameter], Optimizer]] = [(ours, optimizer), (theirs, reference)]
    for step in range(4):
        for parameters, own in pairs:
            give_gradients(parameters, step, 10.0 ** (step - 2))
            own.step()
    begun = values(matrices())
    for mine, its, first in zip(values(ours), values(theirs), begun, strict=True):
        assert (mine - its).norm() < 0.03 * (its - first).norm()
    torch.testing.assert_close(moments(optimizer), moments(reference))


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 20, 32), (2, 32, 20)])
def test_singular_values_come_out_as_the_polynomials_make_them_when_in_fp32(
    shape: tuple[int, int, int],
) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, sizes, right = torch.linalg.svd(given.double(), full_matrices=False)
    sizes = sizes / sizes.norm(dim=1, keepdim=True)
    for a, b, c in CLASSIC:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    expected = left @ torch.diag_embed(sizes) @ right
    torch.testing.assert_close(orthogonalize(normalized(given)), expected.float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_near_fp32_when_matrices_are_ill_conditioned(dtype: torch.dtype) -> None:
    given = torch.randn(2, 32, 48, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, -3, 48)
    exact = orthogonalize(normalized(given))
    rounded = orthogonalize(normalized(given).to(dtype))
    assert rounded.dtype == dtype
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


def test_zeros_stay_zeros() -> None:
    assert orthogonalize(normalized(torch.zeros(2, 4, 6))).count_nonzero() == 0


@pytest.mark.parametrize("scale", [1e-7, 1e10])
def test_update_does_not_depend_on_the_gradients_size_when_products_are_in_fp16(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minigpt.optim.muon.product_dtype", lambda device: torch.float16)
    ours, plain = matrices(), matrices()
    for parameters, factor in ((ours, scale), (plain, 1.0)):
        give_gradients(parameters, 0, factor)
        Muon(parameters, lr=0.1).step()
    torch.testing.assert_close(values(ours), values(plain), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("fill", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("on_the_device", [False, True])
def test_called_off_update_leaves_no_trace(steps_before: int, fill: float, on_the_device: bool) -> None:
    ours, never_saw_it = matrices(), matrices()
    optimizers = Muon(ours), Muon(never_saw_it)
    for step in range(steps_before):
        for parameters, optimizer in zip((ours, never_saw_it), optimizers, strict=True):
            give_gradients(parameters, step)
            optimizer.step()
    before = values(ours)
    for parameter in ours:
        parameter.grad = torch.full_like(parameter, fill)
    if on_the_device:
        update_on_the_device(optimizers[0], OFF)
    else:
        optimizers[0].found_inf = OFF  # type: ignore[attr-defined]
        optimizers[0].step()
        del optimizers[0].found_inf  # type: ignore[attr-defined]
    torch.testing.assert_close(values(ours), before, rtol=0, atol=0)
    for parameters, optimizer in zip((ours, never_saw_it), optimizers, strict=True):
        give_gradients(parameters, 7)
        optimizer.step()
    torch.testing.assert_close(values(ours), values(never_saw_it), rtol=0, atol=0)
    torch.testing.assert_close(moments(optimizers[0]), moments(optimizers[1]), rtol=0, atol=0)


def test_flag_on_the_device_changes_no_bit_when_it_is_not_set() -> None:
    ours, plain = matrices(), matrices()
    flagged, optimizer = Muon(ours), Muon(plain)
    for step in range(2):
        give_gradients(ours, step)
        give_gradients(plain, step)
        update_on_the_device(flagged, ON)
        optimizer.step()
    torch.testing.assert_close(values(ours), values(plain), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_and_momentum_stay_in_their_own_dtype(dtype: torch.dtype) -> None:
    parameters = [nn.Parameter(parameter.detach().to(dtype)) for parameter in matrices()]
    before = values(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = Muon(parameters, lr=0.1)
    update_on_the_device(optimizer, ON)
    assert all(not torch.equal(p, b) for p, b in zip(values(parameters), before, strict=True))
    assert {value.dtype for value in (*values(parameters), *moments(optimizer))} == {dtype}


def test_scale_of_the_gradients_is_taken_out_when_it_is_laid_beside() -> None:
    ours, plain = matrices(), matrices()
    scaled, optimizer = Muon(ours), Muon(plain)
    scaled.grad_scale = torch.tensor(1024.0)  # type: ignore[attr-defined]
    give_gradients(ours, 0, 1024.0)
    give_gradients(plain, 0)
    scaled.step()
    optimizer.step()
    torch.testing.assert_close(values(ours), values(plain), rtol=0, atol=0)


def test_same_shapes_go_together_and_every_matrix_goes_once() -> None:
    parameters = matrices()
    batches = list(_batches(list(parameters)))
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert sorted(id(p) for batch in batches for p in batch) == sorted(map(id, parameters))


def test_large_batches_are_cut_evenly_when_they_outgrow_the_caches() -> None:
    parameters = [torch.empty(1024, 1024) for _ in range(9)]
    assert [len(batch) for batch in _batches(parameters)] == [3, 3, 3]


def test_matrix_without_gradient_is_left_alone_and_others_are_not() -> None:
    parameters = matrices()
    give_gradients(parameters, 0)
    parameters[1].grad = None
    before = values(parameters)
    optimizer = Muon(parameters)
    optimizer.step()
    changed = [not torch.equal(p, b) for p, b in zip(values(parameters), before, strict=True)]
    assert changed == [True, False, True, True, True, True]
    assert parameters[1] not in optimizer.state


def test_state_of_torchs_muon_is_taken_over() -> None:
    """Checkpoints of runs that were begun with it."""
    theirs = matrices()
    reference: Optimizer = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw")
    give_gradients(theirs, 0)
    reference.step()
    optimizer = Muon(matrices())
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    torch.testing.assert_close(moments(optimizer), moments(reference), rtol=0, atol=0)


def test_parameter_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))])
