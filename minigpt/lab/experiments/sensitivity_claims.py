"""What arXiv 2309.14322 says of sensitivity to the learning rate, and what `lab sensitivity` found."""

import math
import statistics
from collections.abc import Sequence

from minigpt.lab.experiments.experiment import Claim, Held, Results
from minigpt.lab.experiments.intervals import Mean, mean_of
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.pairs import signed
from minigpt.lab.experiments.rate_curves import (
    Curves,
    best_rate,
    bounded_loss,
    difference,
    from_common_best,
    gains_above_best,
    losses_by_seed,
    rate_text,
    sensitivities,
)
from minigpt.lab.experiments.verdicts import claim_of_agreement

PLAIN, QK_NORM, Z_LOSS, NO_WARMUP = NAMES = ("plain", "QK-norm", "z-loss", "no warm-up")
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""The paper's range, half a decade apart."""
NEAR = 0.25
"""Nats above the best rate's loss: a run that ends so near was not harmed, whatever else is said of it."""


def arm_name(variant: str, rate: float) -> str:
    return f"{variant}, lr {rate_text(rate)}"


def curves_of(results: Results) -> Curves:
    """The outcomes sorted by variant and rate; only those of which there are any."""
    found = {
        variant: {
            rate: results[arm_name(variant, rate)] for rate in RATES if results.get(arm_name(variant, rate))
        }
        for variant in NAMES
    }
    return {variant: by_rate for variant, by_rate in found.items() if by_rate}


def claims(results: Results) -> list[Claim]:
    """The paper's on QK-norm, z-loss and warm-up; ours on the monitor."""
    curves = curves_of(results)
    found = []
    if PLAIN in curves:
        if QK_NORM in curves:
            found.append(_lowers("QK-norm lowers LR sensitivity (arXiv 2309.14322)", curves, QK_NORM, PLAIN))
        if Z_LOSS in curves:
            found.append(_z_loss_claim(curves))
        if NO_WARMUP in curves:
            found.append(
                _lowers("warm-up lowers LR sensitivity (arXiv 2309.14322)", curves, PLAIN, NO_WARMUP)
            )
    return [*found, _verdict_claim(curves)]


def _lowers(text: str, curves: Curves, with_it: str, without: str) -> Claim:
    of, to = sensitivities(curves[with_it]), sensitivities(curves[without])
    change = difference(of, to)
    means = [f"{statistics.fmean(own.values()):.3f}" for own in (of, to)]
    common = from_common_best({variant: curves[variant] for variant in (with_it, without)})
    apart = [f"{statistics.fmean(common[variant].values()):.3f}" for variant in (with_it, without)]
    return Claim(
        text=text,
        held=below_zero(change),
        found=f"{means[0]} nats ({with_it}) against {means[1]} ({without}), {signed(change)} by seed"
        f"{_doubt(change)}. From the better one's best loss, which the measure does not count: {apart[0]} against "
        f"{apart[1]}.",
    )


def below_zero(change: Mean) -> Held:
    """Whether a change that is claimed to be negative is, by its whole interval."""
    if change.half_width is None or not math.isfinite(change.value):
        return "cannot be told"
    if change.high < 0:
        return "held"
    return "did not hold" if change.low > 0 else "cannot be told"


def _doubt(change: Mean) -> str:
    if change.half_width is None:
        return "; one seed has no interval"
    return "; the interval holds 0" if change.low <= 0 <= change.high else ""


def _z_loss_claim(curves: Curves) -> Claim:
    text = "z-loss helps at high rates (arXiv 2309.14322)"
    gains = list(gains_above_best(curves[PLAIN], curves[Z_LOSS]).values())
    if not gains:
        return Claim(
            text=text,
            held="cannot be told",
            found=f"no rate here is above the {PLAIN} variant's best, {rate_text(best_rate(curves[PLAIN]))}.",
        )
    change = mean_of([-gain for gain in gains])
    return Claim(
        text=text,
        held=below_zero(change),
        found=f"over the rates above {rate_text(best_rate(curves[PLAIN]))}, where {PLAIN} is best, the loss changes by "
        f"{signed(change)} nats{_doubt(change)}.",
    )


def _verdict_claim(curves: Curves) -> Claim:
    """Between the two kinds of run that leave no doubt, the monitor may say either."""
    wrong, doubtful = [], []
    runs = 0
    for by_rate in curves.values():
        best = {seed: min(losses.values()) for seed, losses in losses_by_seed(by_rate).items()}
        for one in (one for found in by_rate.values() for one in found):
            runs += 1
            near = bounded_loss(one) < best.get(one.seed, -math.inf) + NEAR
            if one.blew_up is None and not near:
                doubtful.append(one)
            elif (one.blew_up is not None) != (one.health == "sick"):
                wrong.append(f"{one.arm}, seed {one.seed}, was called {one.health}")
    sick = sum(one.health == "sick" for one in doubtful)
    text = (
        f"the monitor calls the blown-up runs sick, and none that ends within {NEAR:g} nats of its variant's best "
        "(ours)"
    )
    more = (
        f" Of {len(doubtful)} that are neither (a rate too low, or so high that it does harm without a blow-up) it "
        f"calls {sick} sick{_named(doubtful)}."
    )
    return claim_of_agreement(text, wrong, runs - len(doubtful), more)


def _named(found: Sequence[Outcome]) -> str:
    names = sorted({name for one in found if one.health == "sick" for name in one.findings})
    return f" ({', '.join(names)})" if names else ""
