"""`lab accumulate`: its measures by hand, its claims on figures that speak for and against them, and its short form."""

from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.lab.experiments.accumulate import EXPERIMENT
from minigpt.lab.experiments.accumulate_claims import (
    ARMS,
    WHOLE,
    claims,
    curve_claim,
    curve_differences,
    division_claim,
    gradient_claim,
    means_claim,
    memory_claim,
    time_claim,
)
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.report import draw
from minigpt.lab.experiments.room import saving, way_text, ways_of
from minigpt.lab.experiments.splits import mean_of_means, sizes_of, with_uneven_targets
from minigpt.lab.gradients import (
    exact_gradient,
    gradient,
    in_micro_batches,
    relative_difference,
    targets_in,
)
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.model.loss import IGNORE_INDEX
from tests.lab.experiments.outcomes import TINY, seeds_of
from tests.lab.experiments.short_form import short_results

SMALL = ARMS[4]


def _model_and_batch() -> tuple[GPT, tuple[torch.Tensor, torch.Tensor]]:
    model = GPT(ModelConfig(num_layers=1, hidden_size=16, num_heads=2, context_length=8), 64)
    initialize(model, 0)
    ids = torch.randint(0, 64, (4, 9), generator=torch.Generator().manual_seed(0))
    return model, (ids[:, :-1], ids[:, 1:])


def test_sizes_are_halves_down_to_one() -> None:
    assert sizes_of(16) == [16, 8, 4, 2, 1]
    assert sizes_of(12) == [12, 6, 3, 1]
    assert sizes_of(1) == [1]


def test_uneven_targets_keep_a_prefix_of_each_sequence() -> None:
    batch = (torch.zeros((50, 8), dtype=torch.int64), torch.ones((50, 8), dtype=torch.int64))

    _, targets = with_uneven_targets(batch, 0)

    counts = (targets != IGNORE_INDEX).sum(dim=1)
    assert counts.min() == 1
    assert counts.max() == 8
    assert all((row[:count] == 1).all() for row, count in zip(targets, counts, strict=True))
    assert targets_in((batch[0], targets)) == int(counts.sum())
    assert not torch.equal(targets, with_uneven_targets(batch, 1)[1])


def test_gradient_is_what_backward_gives_and_leaves_the_model_alone() -> None:
    model, batch = _model_and_batch()

    found = gradient(model, [batch], scale=1024.0)

    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    (model(*batch).total / 32).backward()
    assert all(torch.allclose(found[name], one.grad, atol=1e-7) for name, one in model.named_parameters())  # type: ignore[arg-type]
    assert relative_difference(found, exact_gradient(model, batch)) < 1e-5


def test_mean_of_means_differs_only_where_targets_are_uneven() -> None:
    model, (inputs, targets) = _model_and_batch()
    assert (
        relative_difference(
            mean_of_means(model, in_micro_batches((inputs, targets), 2)), gradient(model, [(inputs, targets)])
        )
        < 1e-5
    )
    targets = targets.clone()
    targets[0, 1:] = IGNORE_INDEX
    # By hand: the first sequence has one target and the weight of one of four; it should have 1 of 25.
    weights = [1 / 4, 1 / 32, 1 / 32, 1 / 32]
    parts = in_micro_batches((inputs, targets), 1)
    assert relative_difference(mean_of_means(model, parts), gradient(model, parts, weights=weights)) < 1e-6
    assert relative_difference(mean_of_means(model, parts), gradient(model, [(inputs, targets)])) > 0.1


def test_relative_difference_is_norm_over_norm() -> None:
    one, other = {"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([0.0, 4.0])}
    assert relative_difference(one, other) == pytest.approx(0.75)
    assert relative_difference(other, one) == pytest.approx(0.6)


def test_ways_are_named_by_update_and_micro_batch() -> None:
    ways = ways_of(16, torch.device("cpu"))
    assert list(ways)[:3] == ["fp32, 16", "fp32, 64 = 4 x 16", "fp32, 64"]
    assert "bf16, 64 = 4 x 16" in ways
    assert all(way_text(way) == name for name, way in ways.items())
    assert all(update % at_once == 0 for _, update, at_once in ways_of(1, torch.device("cpu")).values())


def _split(
    sums: float = 1e-7, error: float = 1e-7, means: float = 1e-7, longer: float = 1.0
) -> dict[str, float]:
    return {"sums": sums, "error": error, "means": means, "not_divided": longer}


def _looked(full: dict[str, float], uneven: dict[str, float]) -> list[Outcome]:
    whole = {"16": _split()}
    return seeds_of(WHOLE, 2.0, 2.0, before={"full": {**whole, "4": full}, "uneven": {**whole, "4": uneven}})


def test_gradient_claim_allows_rounding_and_no_more() -> None:
    assert gradient_claim(_looked(_split(sums=3e-7), _split())).held == "held"
    assert gradient_claim(_looked(_split(), _split(sums=1e-3))).held == "did not hold"


def test_means_claim_tells_even_from_uneven() -> None:
    assert means_claim(_looked(_split(), _split())).held == "held"
    assert means_claim(_looked(_split(), _split(means=0.2))).held == "held in part"
    assert means_claim(_looked(_split(means=0.1), _split(means=0.2))).held == "did not hold"


def test_division_claim_holds_where_the_length_is_right() -> None:
    wrong = division_claim(_looked(_split(longer=4.0), _split()))
    assert wrong.held == "did not hold"
    assert "4.000 times as long" in wrong.found
    assert division_claim(_looked(_split(), _split())).held == "held"


def test_curve_claim_can_fail() -> None:
    whole = seeds_of(WHOLE, 2.0, 2.5, 3.0)
    assert curve_claim(SMALL, seeds_of(SMALL, 2.001, 2.5, 3.0), whole).held == "held"
    assert curve_claim(SMALL, seeds_of(SMALL, 2.5, 3.0, 3.5), whole).held == "did not hold"
    assert curve_claim(SMALL, seeds_of(SMALL, None, 2.5, 3.0), whole).held == "did not hold"
    assert curve_differences(seeds_of(SMALL, 2.25)[0], whole[0]) == [0.25] * 20


def _room(accumulated: float, at_once: int, device: str = "cuda") -> list[Outcome]:
    """Beside 1 second and 100 bytes of the batch in fp32."""
    sizes = {"fp32, 16": (1.0, 100), "fp32, 64 = 4 x 16": (0.9, 100), "fp32, 64": (0.9, 370)}
    sizes["bf16, 64 = 4 x 16"] = (accumulated, at_once)
    ways: Any = {name: {"seconds": a, "held": b, "peak": None} for name, (a, b) in sizes.items()}
    return seeds_of(WHOLE, 2.0, 2.0, after={"device": device, "batch": 16, "ways": ways, "fits_bf16": 24})


def test_saving_is_a_share_of_the_batch_in_fp32() -> None:
    assert saving(_room(0.4, 70)[0].after, "bf16") == pytest.approx(0.6)
    assert saving(_room(0.4, 70)[0].after, "bf16", "held") == pytest.approx(0.3)


def test_memory_claim_asks_for_no_more_than_the_batch_takes() -> None:
    assert memory_claim(_room(0.4, 70)).held == "held"
    assert memory_claim(_room(0.4, 101)).held == "did not hold"
    assert "64 at once 3.70 in fp32" in memory_claim(_room(0.4, 70)).found


def test_time_claim_is_told_on_a_gpu_only() -> None:
    assert time_claim(_room(0.4, 70)).held == "held"
    assert time_claim(_room(0.6, 70)).held == "held in part"
    assert time_claim(_room(1.2, 70)).held == "did not hold"
    assert time_claim(_room(0.4, 70, device="cpu")).held == "cannot be told"


def test_short_form_trains_alike_in_any_micro_batch_and_holds_less(tmp_path: Path) -> None:
    results = short_results(EXPERIMENT, tmp_path, *TINY, seeds=1)

    (whole,), (small,) = results[WHOLE], results[SMALL]
    splits = whole.before["full"]
    assert all(split["sums"] < 1e-5 for look in whole.before.values() for split in look.values())
    assert splits["4"]["not_divided"] == pytest.approx(4.0, rel=1e-4)
    assert whole.before["uneven"]["4"]["means"] > 100 * whole.before["uneven"]["4"]["sums"]
    assert curve_differences(small, whole)[0] < 1e-4
    assert abs(small.final_loss - whole.final_loss) < 0.1
    ways = whole.after["ways"]
    assert ways["fp32, 64"]["held"] > ways["fp32, 64 = 4 x 16"]["held"] == ways["fp32, 16"]["held"]
    assert ways["fp32, 64 = 64 x 1"]["held"] < ways["fp32, 64 = 16 x 4"]["held"] < ways["fp32, 16"]["held"]
    assert ways["bf16, 64 = 4 x 16"]["held"] < ways["fp32, 16"]["held"]
    assert 16 < whole.after["fits_bf16"] < 64
    assert (whole.blew_up, small.blew_up, whole.health, small.health) == (None, None, "healthy", "healthy")
    assert len(EXPERIMENT.tables(results)) == 3
    assert len(claims(results)) == 7
    pytest.importorskip("matplotlib")
    draw(EXPERIMENT, results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0
