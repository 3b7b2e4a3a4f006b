"""One optimizer step against plain PyTorch, and what it refuses to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minigpt.data.loader import StepBatches
from minigpt.model.loss import IGNORE_INDEX, LossSums
from minigpt.training.run import Run
from minigpt.training.state import restore_state, run_state
from minigpt.training.step import train_step
from tests.training.tiny_run import Workshop, assert_same, opened_run, random_batch, step_batches

# Adam divides by the gradient's own size: with a floor that counts, a gradient's scale shows in the update.
LARGE_EPS = "optimizer.eps=0.01"


@contextmanager
def tiny(workshop: Workshop, *overrides: str, name: str = "run") -> Iterator[Run]:
    with opened_run(workshop.config(*overrides), workshop.folder / name) as run:
        yield run


def weights(run: Run) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}


def moments(run: Run) -> list[Any]:
    return [
        {key: value.clone() for key, value in state.items()}
        for optimizer in run.optimizers
        for state in optimizer.state_dict()["state"].values()
    ]


def gradients_seen(run: Run, batches: StepBatches, lr: float = 0.01) -> tuple[list[Tensor], Tensor]:
    """The full gradients of a step before clipping, and its numbers."""
    seen: list[Tensor] = []

    def inspect() -> None:
        seen.extend(p.grad.clone() for p in run.model.parameters() if p.grad is not None)

    return seen, train_step(run, batches, lr, inspect).numbers


@contextmanager
def poisoned(model: nn.Module) -> Iterator[None]:
    """The loss is NaN while the block runs, as a bad batch would make it."""

    def poison(module: nn.Module, arguments: object, sums: LossSums) -> LossSums:
        return LossSums(sums.total * float("nan"), sums.cross_entropy * float("nan"))

    handle = model.register_forward_hook(poison)
    yield
    handle.remove()


def uneven_batch() -> tuple[Tensor, Tensor]:
    """Eight sequences; most targets of the first three do not count, nor do any of the fourth."""
    inputs, targets = random_batch(8)
    targets[:3, 2:] = IGNORE_INDEX
    targets[3] = IGNORE_INDEX
    return inputs, targets


@pytest.mark.parametrize("parts", [(4, 4), (2, 2, 2, 2), (1, 7), (3, 1, 4)])
def test_accumulated_gradient_is_the_large_batchs_when_targets_are_uneven(
    parts: tuple[int, ...], workshop: Workshop
) -> None:
    batch = uneven_batch()
    with tiny(workshop, LARGE_EPS) as whole, tiny(workshop, LARGE_EPS, name="split") as split:
        for _ in range(3):
            wanted, numbers = gradients_seen(whole, step_batches(batch))
            pieces = zip(*(torch.split(tensor, list(parts)) for tensor in batch), strict=True)
            found, split_numbers = gradients_seen(split, step_batches(*pieces))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(split_numbers, numbers, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights(split), weights(whole), rtol=1e-4, atol=1e-5)


def test_reported_loss_is_the_mean_over_the_targets_that_count(workshop: Workshop) -> None:
    inputs, targets = uneven_batch()
    with tiny(workshop) as run:
        logits = run.model(inputs).detach()
        expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        result = train_step(run, step_batches((inputs[:4], targets[:4]), (inputs[4:], targets[4:])), 0.01)
    assert result.targets == 3 * 2 + 4 * 16
    torch.testing.assert_close(result.numbers[0], expected)


@pytest.mark.parametrize("max_grad_norm", ["0.05", "1000", "null"])
def test_update_is_torchs_own_after_clip_grad_norm_when_clipping(
    max_grad_norm: str, workshop: Workshop
) -> None:
    batch = random_batch(8)
    with tiny(workshop, LARGE_EPS, f"training.max_grad_norm={max_grad_norm}") as run:
        parameters = [nn.Parameter(p.detach().clone()) for p in run.model.parameters()]
        decay = [0.1 if p.ndim == 2 and p.shape[0] != run.model.vocab_size else 0.0 for p in parameters]
        reference = torch.optim.AdamW(
            [{"params": [p], "weight_decay": d} for p, d in zip(parameters, decay, strict=True)],
            lr=0.01,
            betas=(0.9, 0.95),
            eps=0.01,
        )
        for _ in range(2):
            gradients, numbers = gradients_seen(run, step_batches(batch))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            bound = float("inf") if max_grad_norm == "null" else float(max_grad_norm)
            norm = nn.utils.clip_grad_norm_(parameters, bound)
            reference.step()
            torch.testing.assert_close(numbers[3], norm)
        torch.testing.assert_close(
            list(weights(run).values()), [p.detach() for p in parameters], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_nan_batch_leaves_no_trace_in_weights_and_moments(
    steps_before: int, optimizer: str, workshop: Workshop
) -> None:
    name = f"optimizer.name={optimizer}"
    good = [step_batches(random_batch(4, seed)) for seed in range(3)]
    with tiny(workshop, name) as run, tiny(workshop, name, name="other") as never_saw_it:
        for batches in good[:steps_before]:
            train_step(run, batches, 0.01)
            train_step(never_saw_it, batches, 0.01)
        before = weights(run), moments(run)
        with poisoned(run.model):
            numbers = train_step(run, step_batches(random_batch(4, 9)), 0.01).numbers
        assert numbers[0].isnan()
        assert numbers[1] == 1
        assert_same(weights(run), before[0])
        if steps_before:
            assert_same(moments(run), before[1])

        after = train_step(run, good[2], 0.01).numbers
        assert after[1] == 0
        assert_same(after[:4], train_step(never_saw_it, good[2], 0.01).numbers[:4])
        assert_same(weights(run), weights(never_saw_it))
        assert_same(moments(run), moments(never_saw_it))


def test_fp16_overflow_is_skipped_and_halves_the_scale_when_it_began_too_high(workshop: Workshop) -> None:
    fp16 = "training.mixed_precision=fp16"
    batches = step_batches(random_batch(4))
    with tiny(workshop, fp16) as run, tiny(workshop, fp16, name="other") as other:
        assert type(run.scaler) is torch.amp.GradScaler
        assert run.scaler.get_scale() == 2.0**16
        run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 2.0**40})
        before = weights(run)

        numbers = train_step(run, batches, 0.01).numbers
        assert numbers[0].isfinite()
        assert numbers[1:3].tolist() == [1.0, 2.0**40]
        assert_same(weights(run), before)
        assert run.scaler.get_scale() == 2.0**39

        state = run_state(run)
        assert state is not None
        assert state["scaler_state_dict"]["scale"] == 2.0**39
        restore_state(other, state)
        assert other.scaler.get_scale() == 2.0**39

        skipped = 1
        while (numbers := train_step(run, batches, 0.01).numbers)[1]:
            skipped += 1
            assert_same(weights(run), before)
        assert numbers[2] == 2.0 ** (40 - skipped)
        assert any(not torch.equal(new, before[name]) for name, new in weights(run).items())


def test_fp16_gradients_are_unscaled_before_they_are_measured(workshop: Workshop) -> None:
    batches = step_batches(random_batch(4))
    with tiny(workshop, "training.mixed_precision=fp16") as half, tiny(workshop, name="full") as full:
        scaled, plain = (train_step(run, batches, 0.01).numbers for run in (half, full))
    # The total and each parameter's; what else is measured is not about gradients.
    norms = slice(3, 4 + len(list(full.model.parameters())))
    torch.testing.assert_close(scaled[norms], plain[norms], rtol=0.02, atol=1e-3)


def test_z_loss_steers_the_gradient_but_is_not_reported(workshop: Workshop) -> None:
    batches = step_batches(random_batch(4))
    with tiny(workshop) as without, tiny(workshop, "model.z_loss_weight=0.1", name="z") as with_z:
        first, second = (train_step(run, batches, 0.01).numbers for run in (without, with_z))
    assert first[0] == second[0]
    assert not torch.isclose(first[3], second[3], rtol=1e-3)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_activation_checkpointing_changes_nothing(workshop: Workshop, kind: str) -> None:
    off, on = (f"training.activation_checkpointing={value}" for value in ("off", kind))
    with tiny(workshop, off, "model.dropout=0.1") as plain:
        for seed in range(3):
            train_step(plain, step_batches(random_batch(4, seed)), 0.01)
    with tiny(workshop, on, "model.dropout=0.1", name="recomputed") as recomputed:
        for seed in range(3):
            train_step(recomputed, step_batches(random_batch(4, seed)), 0.01)
    assert_same(weights(recomputed), weights(plain))


def test_inspection_sees_whole_gradients_before_clipping(workshop: Workshop, tmp_path: Path) -> None:
    with tiny(workshop, "training.max_grad_norm=0.01") as run:
        parts = step_batches(random_batch(4, 1), random_batch(4, 2))
        gradients, numbers = gradients_seen(run, parts)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        torch.testing.assert_close(numbers[3], norm)
        assert norm > 0.1
        assert all(parameter.grad is None for parameter in run.model.parameters())
