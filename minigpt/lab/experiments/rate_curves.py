"""Final losses over the learning rate, and how much they depend on it."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from minigpt.lab.experiments.intervals import Mean, mean_of
from minigpt.lab.experiments.outcome import Outcome

ByRate = Mapping[float, Sequence[Outcome]]
"""By learning rate: an outcome a seed, in the seeds' order."""
Curves = Mapping[str, ByRate]
"""By variant."""


def rate_text(rate: float) -> str:
    """As a configuration has it: 3e-4."""
    digits, _, exponent = f"{rate:.15e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def bounded_loss(outcome: Outcome) -> float:
    """min(final loss, loss before the first update): a diverged run counts as an untrained one, never as a worse."""
    start, end = outcome.losses[0], outcome.final_loss
    if start is None:
        return math.nan
    return min(start, end) if math.isfinite(end) else start


def losses_by_seed(by_rate: ByRate) -> dict[int, dict[float, float]]:
    """The bounded loss by seed and rate; only seeds that were trained at every rate."""
    sets = [{one.seed for one in found} for found in by_rate.values()]
    losses: dict[int, dict[float, float]] = {seed: {} for seed in sorted(set.intersection(*sets))}
    for rate, found in by_rate.items():
        for one in found:
            if one.seed in losses:
                losses[one.seed][rate] = bounded_loss(one)
    return losses


def sensitivity(losses: Iterable[float]) -> float:
    """Mean over the rates of loss - best loss: the expected deviation from the best, in nats (arXiv 2309.14322)."""
    values = list(losses)
    return statistics.fmean(values) - min(values)


def sensitivities(by_rate: ByRate) -> dict[int, float]:
    """By seed."""
    return {seed: sensitivity(losses.values()) for seed, losses in losses_by_seed(by_rate).items()}


def from_common_best(curves: Curves) -> dict[str, dict[int, float]]:
    """Mean over the rates of loss - best loss of all variants, by variant and seed: a variant that is as bad at every
    rate is as insensitive as can be, and shows here."""
    losses = {variant: losses_by_seed(by_rate) for variant, by_rate in curves.items()}
    seeds = set.intersection(*(set(by_seed) for by_seed in losses.values()))
    best = {seed: min(min(by_seed[seed].values()) for by_seed in losses.values()) for seed in seeds}
    return {
        variant: {seed: statistics.fmean(by_seed[seed].values()) - best[seed] for seed in sorted(seeds)}
        for variant, by_seed in losses.items()
    }


def difference(of: Mapping[int, float], to: Mapping[int, float]) -> Mean:
    """Mean of `of` - `to` over the seeds that both have: the seed's own luck is in both, and falls out."""
    return mean_of([of[seed] - to[seed] for seed in sorted(of.keys() & to.keys())])


def best_rate(by_rate: ByRate) -> float:
    """The rate with the lowest mean loss."""
    means = {rate: statistics.fmean(map(bounded_loss, found)) for rate, found in by_rate.items()}
    return min(means, key=lambda rate: means[rate])


def gains_above_best(plain: ByRate, other: ByRate) -> dict[int, float]:
    """Nats, by seed, that `other` is below `plain`: the mean over the rates above the best of `plain`."""
    rates = [rate for rate in plain if rate > best_rate(plain) and rate in other]
    if not rates:
        return {}
    losses, others = losses_by_seed(plain), losses_by_seed(other)
    return {
        seed: statistics.fmean(losses[seed][rate] - others[seed][rate] for rate in rates)
        for seed in sorted(losses.keys() & others.keys())
    }
