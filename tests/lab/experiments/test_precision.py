"""`lab precision`: its measures by hand, its claims on figures that speak for and against them, and its short form."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.lab.experiments.held_bytes import largest_within, saved_bytes
from minigpt.lab.experiments.intervals import Mean
from minigpt.lab.experiments.loss_scale import FixedScaler
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.pairs import loss_difference, signed, within
from minigpt.lab.experiments.precision import EXPERIMENT
from minigpt.lab.experiments.precision_claims import (
    BARE,
    DYNAMIC,
    FP32,
    LARGE,
    broken,
    claims,
    memory_claim,
    nan_claim,
    same_loss_claim,
    speed_claim,
    underflow_claim,
)
from minigpt.lab.experiments.report import draw
from minigpt.lab.experiments.turns import in_turns
from minigpt.lab.experiments.underflow import SCALES, flushed_share, losses_of, scale_text
from minigpt.lab.experiments.verdicts import disagreements
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize
from minigpt.training.precision import Precision
from tests.lab.experiments.outcomes import TINY, seeds_of
from tests.lab.experiments.short_form import short_results


def test_losses_counts_zeros_that_fp32_does_not_have() -> None:
    whole = {"embedding.weight": torch.tensor([3.0, 4.0, 0.0]), "blocks.0.x.weight": torch.tensor([1.0, 2.0])}
    found = {"embedding.weight": torch.tensor([3.0, 0.0, 0.0]), "blocks.0.x.weight": torch.tensor([1.0, 2.0])}

    losses = losses_of(found, whole)

    assert losses["embedding"] == {"elements": 2, "flushed": 1, "not_finite": 0, "norm": 5.0, "error": 0.8}
    assert losses["blocks.0"]["flushed"] == 0
    assert losses["all"]["elements"] == 4
    assert flushed_share({"1": losses}, 1.0) == 0.25


def test_losses_has_no_error_where_fp16_overflowed() -> None:
    losses = losses_of({"a.weight": torch.tensor([math.inf, 1.0])}, {"a.weight": torch.tensor([1.0, 1.0])})

    assert losses["all"]["not_finite"] == 1
    assert losses["all"]["error"] is None


def test_scale_text_is_a_fraction_below_one() -> None:
    assert [scale_text(scale) for scale in SCALES] == ["1/256", "1", "4", "1024", "65536"]


def test_fixed_scaler_keeps_its_scale_after_an_overflow() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = FixedScaler("cpu", 1024)
    for _ in range(3):
        scaler.scale(weight.sum()).backward()  # type: ignore[no-untyped-call]
        weight.grad = torch.full((1,), math.inf)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 1024
    assert weight.item() == 1.0


def _model(num_layers: int) -> GPT:
    model = GPT(ModelConfig(num_layers=num_layers, hidden_size=32, num_heads=2, context_length=16), 64)
    initialize(model, 0)
    return model


def test_saved_bytes_grows_with_the_sequences_and_shrinks_in_bf16() -> None:
    model, ids = _model(2), torch.zeros((8, 16), dtype=torch.int64)
    fp32, bf16 = Precision("off", torch.float32, "cpu"), Precision("bf16", torch.bfloat16, "cpu")

    one, two, eight = (saved_bytes(model, (ids[:count], ids[:count]), fp32) for count in (1, 2, 8))

    # Beside what each sequence takes there is what they share: the head's gradient.
    assert 0 < one < two < eight
    assert eight - two == pytest.approx(6 * (two - one), rel=0.02)
    assert saved_bytes(model, (ids, ids), bf16) < eight


def test_saved_bytes_leaves_the_weights_out_and_counts_each_storage_once() -> None:
    class Twice(GPT):
        """Keeps x, twice, and the embedding's weight."""

        def forward(self, inputs: Any, targets: Any) -> Any:  # type: ignore[override]
            x = torch.ones(4, 8, requires_grad=True)
            return (x * x * self.embedding.weight[0, :8]).sum()

    model = Twice(ModelConfig(num_layers=1, hidden_size=32, num_heads=2, context_length=16), 64)
    initialize(model, 0)

    # x (twice) and x * x: 4 x 8 fp32 each.
    assert saved_bytes(model, (torch.zeros(1), torch.zeros(1)), Precision("off", torch.float32, "cpu")) == 256


@pytest.mark.parametrize(("limit", "fits"), [(9, 0), (10, 1), (39, 3), (40, 4), (1000, 8)])
def test_largest_within_is_the_last_that_fits(limit: int, fits: int) -> None:
    assert largest_within(limit, lambda size: 10 * size, 8) == fits


def test_in_turns_takes_turns() -> None:
    calls: list[str] = []
    seconds = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_loss_difference_is_taken_seed_by_seed() -> None:
    difference = loss_difference(seeds_of("one", 2.1, 3.2), seeds_of("other", 2.0, 3.0, 9.0))
    assert difference.value == pytest.approx(0.15)
    assert difference.count == 2


def test_signed_has_a_sign_on_the_mean_alone() -> None:
    assert signed(Mean(0.25, 0.5, 3), ".2f") == "+0.25 ± 0.50"
    assert signed(Mean(-0.25, None, 1), ".2f") == "-0.25"
    assert signed(Mean(math.nan, None, 3)) == "not finite"


@pytest.mark.parametrize(
    ("mean", "held"),
    [
        (Mean(0.5, 0.1, 3), "held"),
        (Mean(0.95, 0.1, 3), "cannot be told"),
        (Mean(1.2, 0.1, 3), "did not hold"),
        (Mean(0.5, None, 1), "cannot be told"),
        (Mean(math.nan, None, 3), "did not hold"),
        (Mean(math.nan, None, 0), "cannot be told"),
    ],
)
def test_within_asks_for_the_whole_interval(mean: Mean, held: str) -> None:
    assert within(mean, 0.0, 1.0) == held


def test_nan_claim_counts_runs() -> None:
    assert nan_claim(seeds_of(BARE, None, None)).held == "held"
    assert nan_claim(seeds_of(BARE, None, 2.0)).held == "held in part"
    assert nan_claim(seeds_of(BARE, 2.0, 2.0)).held == "did not hold"


def test_same_loss_claim_can_fail() -> None:
    fp32 = seeds_of(FP32, 2.0, 2.1, 2.2)
    assert same_loss_claim(seeds_of(DYNAMIC, 2.01, 2.1, 2.2), fp32).held == "held"
    assert same_loss_claim(seeds_of(DYNAMIC, 2.2, 2.3, 2.4), fp32).held == "did not hold"
    assert same_loss_claim(seeds_of(DYNAMIC, None, 2.1, 2.2), fp32).held == "did not hold"
    assert same_loss_claim(seeds_of(DYNAMIC, 1.5, 2.1, 2.9), fp32).held == "cannot be told"


def test_broken_is_blown_up_or_far_above_fp32() -> None:
    assert broken(seeds_of(BARE, None)[0], {0: 2.0}) == "blew up (not finite)"
    assert broken(seeds_of(BARE, 3.0)[0], {0: 2.0}) == "ended 1.00 nats above fp32"
    assert broken(seeds_of(BARE, 2.1)[0], {0: 2.0}) is None
    assert broken(seeds_of(BARE, 9.0)[0], {}) is None


def test_claims_hear_a_verdict_on_a_run_that_did_not_blow_up() -> None:
    fp32, sick = seeds_of(FP32, 2.0), seeds_of(BARE, 3.0, health="sick")
    told = [claims({FP32: [], BARE: found})[-1].held for found in (sick, seeds_of(BARE, 2.0))]
    assert told == ["did not hold", "held"]
    wrong = disagreements([*fp32, *sick, *seeds_of(BARE, 3.0)], partial(broken, fp32={0: 2.0}))
    assert wrong == [f"{BARE}, seed 0, ended 1.00 nats above fp32 and was called healthy"]


def _look(
    seconds: float = 1.0, held: int = 100, peak: int | None = None, device: str = "cuda"
) -> dict[str, Any]:
    """Beside fp32's 1 second and 100 bytes."""
    return {
        "device": device,
        "tokens": 2048,
        "seconds": {"fp32": 1.0, "own": seconds},
        "fp32": {"saved": 100, "held": 100, "peak": None if peak is None else 100},
        "own": {"saved": 50, "held": held, "peak": peak},
    }


def _scaled(**fields: Any) -> list[Outcome]:
    return seeds_of(DYNAMIC, 2.0, 2.0, after=_look(**fields))


def test_speed_claim_is_told_on_a_gpu_only() -> None:
    assert speed_claim(_scaled(seconds=0.5, device="cpu"), 1.8).held == "cannot be told"
    assert speed_claim(_scaled(seconds=0.5), 1.8).held == "held"
    assert speed_claim(_scaled(seconds=0.7), 1.8).held == "held in part"
    assert speed_claim(_scaled(seconds=0.7), 1.3).held == "held"
    assert speed_claim(_scaled(seconds=1.1), 1.8).held == "did not hold"


def test_memory_claim_goes_by_the_peak_where_there_is_one() -> None:
    assert memory_claim(_scaled(held=60), 0.6).held == "held"
    assert memory_claim(_scaled(held=80), 0.6).held == "held in part"
    assert memory_claim(_scaled(held=110), 0.6).held == "did not hold"
    assert memory_claim(_scaled(held=60, peak=110), 0.6).held == "did not hold"
    assert memory_claim(_scaled(held=60)[:1], 0.6).held == "held"


@pytest.mark.parametrize(
    ("flushed", "held"),
    [
        ({"1": 50, "1024": 1, "1/256": 90, "4": 9}, "held"),
        ({"1": 50, "1024": 1, "1/256": 90, "4": 40}, "held in part"),
        ({"1": 50, "1024": 50, "1/256": 90, "4": 90}, "did not hold"),
        ({"1": 0, "1024": 0, "1/256": 0, "4": 0}, "cannot be told"),
    ],
)
def test_underflow_claim_compares_with_and_without(flushed: dict[str, int], held: str) -> None:
    underflow = {
        scale: {"all": {"elements": 100, "flushed": count, "not_finite": 0, "norm": 1.0, "error": 0.1}}
        for scale, count in flushed.items()
    }
    found = seeds_of(FP32, 2.0, 2.0, after={**_look(), "underflow": underflow})
    assert underflow_claim(found).held == held


def test_short_form_flushes_less_with_a_larger_scale_and_saves_memory(tmp_path: Path) -> None:
    results = short_results(EXPERIMENT, tmp_path, *TINY, seeds=1)

    for one in results[FP32]:
        for look in (one.before["underflow"], one.after["underflow"]):
            shares = [flushed_share(look, scale) for scale in SCALES]
            assert shares == sorted(shares, reverse=True)
            assert shares[0] > shares[3]
            errors = [look[scale_text(scale)]["all"]["error"] for scale in SCALES]
            assert errors[0] > errors[3]
    for name, found in results.items():
        for one in found:
            assert one.blew_up is None
            assert one.health == "healthy" or name == LARGE
            ratio = one.after["own"]["saved"] / one.after["fp32"]["saved"]
            assert ratio == 1 if name == FP32 else ratio < 1
    # A fixed scale makes smaller gradients than a scale of 65536, and the weights move alike all the same.
    assert (
        results[LARGE][0].first_group_norms["blocks.0"] != results[DYNAMIC][0].first_group_norms["blocks.0"]
    )
    assert len(EXPERIMENT.tables(results)) == 3
    assert {claim.held for claim in claims(results)} <= {
        "held",
        "held in part",
        "did not hold",
        "cannot be told",
    }
    pytest.importorskip("matplotlib")
    draw(EXPERIMENT, results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0
