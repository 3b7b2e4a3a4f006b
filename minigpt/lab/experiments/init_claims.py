"""What is said of first weights, and what `lab init` found."""

import math
from collections.abc import Sequence

from minigpt.lab.experiments.experiment import Claim, Held, Results
from minigpt.lab.experiments.initializations import KAIMING, XAVIER
from minigpt.lab.experiments.intervals import Ratio, mean_of
from minigpt.lab.experiments.layers import number
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.pairs import loss_difference, signed
from minigpt.lab.experiments.ratios import ratio_of
from minigpt.lab.experiments.verdicts import claim_of_agreement

EVEN = 2.0
"""Variances of two layers within this factor are called equal."""
WORSE = 0.1
"""Nats of final loss above the best arm's, from which first weights are called bad."""


def claims(results: Results) -> list[Claim]:
    """The users' two, then ours on the monitor; those that the trained arms can speak of."""
    found = []
    if results.get(XAVIER):
        found.append(evenness_claim(results))
    if results.get(KAIMING) and len(results) > 1:
        found.append(kaiming_claim(results))
    return [*found, verdict_claim(results)]


def variance_growth(found: Sequence[Outcome], kind: str) -> Ratio:
    """Mean square in the last block : in the first, at the start; of the `stream`, or of what a `branch` adds."""
    ends = [(number(one.before[kind][-1]) ** 2, number(one.before[kind][0]) ** 2) for one in found]
    return ratio_of(ends)


def evenness_claim(results: Results) -> Claim:
    """Both the stream and what the branches add."""
    growth = {kind: variance_growth(results[XAVIER], kind) for kind in ("stream", "branch")}
    even = [1 / EVEN <= ratio.value <= EVEN for ratio in growth.values()]
    others = ", ".join(
        f"{name} {variance_growth(found, 'stream').value:.3g}"
        for name, found in results.items()
        if found and name != XAVIER
    )
    return Claim(
        text="Xavier keeps the variance of activations equal across the layers (said of CNNs)",
        held="held" if all(even) else "held in part" if any(even) else "did not hold",
        found=(
            f"last block : first, what a block's SwiGLU adds {growth['branch'].text()}, and the stream, which is the "
            f"sum of it all, {growth['stream'].text()} (the stream elsewhere: {others or '-'}); within a factor of "
            f"{EVEN:g} counts as equal."
        ),
    )


def kaiming_claim(results: Results) -> Claim:
    """Whether Kaiming's final loss is lower than each of the others' by more than chance, seed by seed."""
    above = {
        name: loss_difference(results[name], results.get(KAIMING, ()))
        for name in results
        if name != KAIMING and results[name]
    }
    better = [mean.half_width is not None and mean.low > 0 for mean in above.values()]
    held: Held = "held" if all(better) else "held in part" if any(better) else "did not hold"
    said = ", ".join(f"{name} {signed(mean, '.2f')}" for name, mean in above.items())
    return Claim(
        text="for Transformers Kaiming is recommended",
        held=held if any(mean.half_width is not None for mean in above.values()) else "cannot be told",
        found=f"final loss of the others less Kaiming's, in nats: {said}.",
    )


def verdict_claim(results: Results) -> Claim:
    """Every run of an arm that is bad is called sick or to be watched, no run of the others is."""
    bad = bad_arms(results)
    wrong = [
        f"{one.arm}, seed {one.seed}, was called {one.health}"
        for name, found in results.items()
        for one in found
        if (name in bad) == (one.health == "healthy")
    ]
    runs = sum(len(found) for found in results.values())
    text = (
        f"the monitor speaks of first weights that cost {WORSE} nats or more (by more than chance), and of no others "
        "(ours)"
    )
    return claim_of_agreement(text, wrong, runs, f" Bad here: {', '.join(bad) or 'none'}.")


def bad_arms(results: Results) -> list[str]:
    """Those with a blown-up run, or whose final loss is WORSE or more above the best arm's, and by more than chance."""
    means = {
        name: mean_of([one.final_loss for one in found]).value for name, found in results.items() if found
    }
    best = min((name for name in means if math.isfinite(means[name])), key=means.__getitem__, default=None)
    above = {name: loss_difference(results[name], results.get(best or "", ())) for name in means}
    return [
        name
        for name, mean in above.items()
        if any(one.blew_up for one in results[name])
        or not math.isfinite(means[name])
        or (mean.value >= WORSE and mean.half_width is not None and mean.low > 0)
    ]
