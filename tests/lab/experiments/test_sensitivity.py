import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.lab.experiments.experiment import Results
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.rate_curves import (
    best_rate,
    bounded_loss,
    difference,
    from_common_best,
    gains_above_best,
    rate_text,
    sensitivities,
    sensitivity,
)
from minigpt.lab.experiments.sensitivity import EXPERIMENT, VARIANTS, tables
from minigpt.lab.experiments.sensitivity_claims import (
    NO_WARMUP,
    PLAIN,
    QK_NORM,
    RATES,
    Z_LOSS,
    arm_name,
    below_zero,
    claims,
    curves_of,
)
from tests.lab.experiments.made_up import outcome
from tests.lab.experiments.short_form import short_results

LOW, MIDDLE, HIGH = 1e-3, 1e-2, 1e-1
TINY = ("model.context_length=32", "training.tokens_per_step=512", "training.max_steps=40")


def ended(variant: str, rate: float, seed: int, final: float | None, health: str = "healthy") -> Outcome:
    """A training of 20 steps from 7 nats; the last one, all of the final twentieth, has the loss asked for."""
    return outcome([*[7.0] * 19, final], arm=arm_name(variant, rate), seed=seed, health=health)


def grid(losses: Mapping[str, Sequence[float]], seeds: int = 3) -> Results:
    """Every variant's losses at LOW, MIDDLE and HIGH; each seed has a little luck of its own, the same in all."""
    return {
        arm_name(variant, rate): [ended(variant, rate, seed, loss + 0.1 * seed) for seed in range(seeds)]
        for variant, values in losses.items()
        for rate, loss in zip((LOW, MIDDLE, HIGH), values, strict=True)
    }


AS_CLAIMED = {
    PLAIN: (4.0, 3.0, 5.0),
    QK_NORM: (4.0, 3.0, 3.5),
    Z_LOSS: (4.0, 3.0, 4.5),
    NO_WARMUP: (4.0, 3.0, 6.0),
}
OTHERWISE = {
    PLAIN: (4.0, 3.0, 5.0),
    QK_NORM: (4.0, 3.0, 6.0),
    Z_LOSS: (4.0, 3.0, 5.5),
    NO_WARMUP: (4.0, 3.0, 3.5),
}


@pytest.mark.parametrize(("rate", "text"), [(3e-4, "3e-4"), (1e-1, "1e-1"), (0.0025, "2.5e-3"), (1.0, "1e0")])
def test_rate_is_written_as_in_a_configuration(rate: float, text: str) -> None:
    assert rate_text(rate) == text
    assert float(text) == rate


def test_sensitivity_is_the_mean_distance_from_the_best() -> None:
    assert sensitivity([4.0, 3.0, 5.0]) == 1.0
    assert sensitivity([3.0, 3.0]) == 0.0


def test_a_run_that_diverged_counts_as_an_untrained_one() -> None:
    assert bounded_loss(ended(PLAIN, HIGH, 0, None)) == 7.0
    assert bounded_loss(ended(PLAIN, HIGH, 0, 9.0)) == 7.0
    assert bounded_loss(ended(PLAIN, HIGH, 0, 6.5)) == 6.5


def test_sensitivities_are_by_seed_and_only_of_those_that_have_all_rates() -> None:
    results = dict(grid({PLAIN: (4.0, 3.0, 5.0)}))
    results[arm_name(PLAIN, HIGH)] = results[arm_name(PLAIN, HIGH)][:2]
    assert sensitivities(curves_of(results)[PLAIN]) == pytest.approx({0: 1.0, 1: 1.0})


def test_differences_are_paired_so_that_the_luck_of_a_seed_falls_out() -> None:
    change = difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.5, 1: 2.5, 2: 3.5, 3: 100.0})
    assert (change.value, change.half_width, change.count) == (-0.5, 0.0, 3)


def test_a_variant_that_is_bad_everywhere_is_insensitive_but_far_from_the_common_best() -> None:
    curves = curves_of(grid({PLAIN: (4.0, 3.0, 5.0), NO_WARMUP: (5.0, 5.0, 5.0)}))
    assert sensitivities(curves[NO_WARMUP]) == pytest.approx({0: 0.0, 1: 0.0, 2: 0.0})
    assert from_common_best(curves)[NO_WARMUP] == pytest.approx({0: 2.0, 1: 2.0, 2: 2.0})
    assert from_common_best(curves)[PLAIN] == pytest.approx({0: 1.0, 1: 1.0, 2: 1.0})


def test_gains_are_over_the_rates_above_the_best_of_the_plain_variant() -> None:
    curves = curves_of(grid(AS_CLAIMED))
    assert best_rate(curves[PLAIN]) == MIDDLE
    assert gains_above_best(curves[PLAIN], curves[Z_LOSS]) == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5})
    highest_best = curves_of(grid({PLAIN: (5.0, 4.0, 3.0), Z_LOSS: (5.0, 4.0, 3.0)}))
    assert gains_above_best(highest_best[PLAIN], highest_best[Z_LOSS]) == {}


def test_claims_follow_what_was_found() -> None:
    assert [claim.held for claim in claims(grid(AS_CLAIMED))][:3] == ["held"] * 3
    assert [claim.held for claim in claims(grid(OTHERWISE))][:3] == ["did not hold"] * 3
    assert [claim.held for claim in claims(grid(AS_CLAIMED, seeds=1))][:3] == ["cannot be told"] * 3
    same = grid(dict.fromkeys(VARIANTS, (4.0, 3.0, 5.0)))
    assert [claim.held for claim in claims(same)][:3] == ["cannot be told"] * 3


def test_a_difference_within_its_interval_cannot_be_told() -> None:
    assert below_zero(difference({0: 0.0, 1: 1.0}, {0: 1.0, 1: 0.5})) == "cannot be told"
    assert below_zero(difference({0: math.nan, 1: 1.0}, {0: 1.0, 1: 0.5})) == "cannot be told"


def test_monitor_is_held_to_blow_ups_and_to_runs_near_the_best_alone() -> None:
    results = dict(grid({PLAIN: (4.0, 3.0, 5.0)}, seeds=1))
    assert claims(results)[-1].held == "held"
    # Neither near the best nor blown up: either verdict will do.
    results[arm_name(PLAIN, HIGH)] = [ended(PLAIN, HIGH, 0, 5.0, health="sick")]
    assert claims(results)[-1].held == "held"
    results[arm_name(PLAIN, MIDDLE)] = [ended(PLAIN, MIDDLE, 0, 3.0, health="sick")]
    assert claims(results)[-1].held == "did not hold"
    results[arm_name(PLAIN, HIGH)] = [ended(PLAIN, HIGH, 0, None, health="healthy")]
    assert "lr 1e-1, seed 0, was called healthy" in claims(results)[-1].found


def test_each_variant_changes_one_thing_and_has_every_rate() -> None:
    assert all(len(overrides) == (variant != PLAIN) for variant, overrides in VARIANTS.items())
    assert [arm.name for arm in EXPERIMENT.arms] == [
        arm_name(variant, rate) for variant in VARIANTS for rate in RATES
    ]
    shortened = " ".join(EXPERIMENT.short.overrides)
    assert not any(
        override.partition("=")[0] in shortened for found in VARIANTS.values() for override in found
    )


def test_short_form_finds_that_too_low_a_rate_learns_less(tmp_path: Path) -> None:
    few = tuple(arm_name(variant, rate) for variant in (PLAIN, QK_NORM) for rate in (LOW, MIDDLE, HIGH))
    experiment = replace(EXPERIMENT, short=replace(EXPERIMENT.short, arms=few))
    results = short_results(experiment, tmp_path, *TINY, seeds=1)
    curves = curves_of(results)
    assert list(curves) == [PLAIN, QK_NORM]
    for by_rate in curves.values():
        low, middle = (bounded_loss(by_rate[rate][0]) for rate in (LOW, MIDDLE))
        assert middle < low
        assert sensitivities(by_rate)[0] > 0
    assert [table.rows[0][0] for table in tables(results)] == [PLAIN, "1e-3"]
    assert len(claims(results)) == 2  # QK-norm's and the monitor's: there is nothing to say of the others
