"""`lab sensitivity`: how much the final loss depends on the learning rate, and what makes it depend less.

After Wortsman et al. 2023 (arXiv 2309.14322), who find in small models, at high rates, what large ones fail of.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from minigpt.lab.experiments.experiment import Arm, Claim, Experiment, Held, Results, Short
from minigpt.lab.experiments.intervals import Mean, Share, mean_of
from minigpt.lab.experiments.outcome import LAST_SHARE, Outcome
from minigpt.lab.experiments.rate_curves import (
    ByRate,
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
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN, QK_NORM, Z_LOSS, NO_WARMUP = "plain", "QK-norm", "z-loss", "no warm-up"
VARIANTS: Mapping[str, tuple[str, ...]] = {
    PLAIN: (),
    QK_NORM: ("model.qk_norm=true",),
    Z_LOSS: ("model.z_loss_weight=1e-4",),
    NO_WARMUP: ("schedule.warmup_steps=0",),
}
"""Each differs from the first in one thing."""
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
        for variant in VARIANTS
    }
    return {variant: by_rate for variant, by_rate in found.items() if by_rate}


def tables(results: Results) -> list[Table]:
    """A row a variant; then the losses, a row a rate."""
    curves = curves_of(results)
    plain = sensitivities(curves[PLAIN]) if PLAIN in curves else {}
    common = from_common_best(curves)
    rows: list[list[Cell]] = []
    for variant, by_rate in curves.items():
        own, best = sensitivities(by_rate), best_rate(by_rate)
        runs = [one for found in by_rate.values() for one in found]
        rows.append(
            [
                variant,
                mean_of(list(own.values())),
                None if variant == PLAIN or not plain else difference(own, plain),
                mean_of(list(common[variant].values())),
                rate_text(best),
                mean_of([bounded_loss(one) for one in by_rate[best]]),
                Share(sum(one.blew_up is not None for one in runs), len(runs)),
                verdict_text(runs),
            ]
        )
    head = (
        "variant",
        "LR sensitivity",
        f"against {PLAIN}, by seed",
        "from the best of all",
        "best rate",
        "loss there",
        "blown up",
        "the monitor's verdict",
    )
    title = (
        "LR sensitivity: mean deviation of the final loss from the best over the rates (nats, 95 % interval)"
    )
    return [columns_of(head, rows, title), _losses(curves)]


def _losses(curves: Curves) -> Table:
    rates = sorted({rate for by_rate in curves.values() for rate in by_rate})
    rows: list[list[Cell]] = []
    for rate in rates:
        at_rate = [by_rate.get(rate, ()) for by_rate in curves.values()]
        runs = [one for found in at_rate for one in found]
        blown_up = Share(sum(one.blew_up is not None for one in runs), len(runs))
        means: list[Cell] = [
            mean_of([bounded_loss(one) for one in found]) if found else None for found in at_rate
        ]
        rows.append([rate_text(rate), *means, blown_up, verdict_text(runs)])
    head = ("learning rate", *curves, "blown up", "the monitor's verdict")
    return columns_of(head, rows, "Final loss (nats a token, mean and 95 % interval)")


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
        found=f"{means[0]} nats ({with_it}) against {means[1]} ({without}), {change.text('+.3f')} by seed"
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
        f"{change.text('+.3f')} nats{_doubt(change)}.",
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
    clear = runs - len(doubtful)
    return Claim(
        text=f"the monitor calls the blown-up runs sick, and none that ends within {NEAR:g} nats of its variant's best "
        "(ours)",
        held="held" if not wrong else "held in part" if len(wrong) < clear / 2 else "did not hold",
        found=f"{clear - len(wrong)} of {clear} right{''.join(f'; {line}' for line in wrong[:4])}. Of {len(doubtful)} "
        f"that are neither (a rate too low, or so high that it does harm without a blow-up) it calls {sick} sick"
        f"{_named(doubtful)}.",
    )


def _named(found: Sequence[Outcome]) -> str:
    names = sorted({name for one in found if one.health == "sick" for name in one.findings})
    return f" ({', '.join(names)})" if names else ""


def draw(results: Results, figure: "Figure") -> None:
    """Final loss over the rate, a curve a variant: the classic U; beside it each variant's sensitivity."""
    curves = curves_of(results)
    losses, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    for number, (variant, by_rate) in enumerate(curves.items()):
        _draw_curve(losses, by_rate, f"C{number}", variant)
        own = list(sensitivities(by_rate).values())
        mean = mean_of(own)
        bars.barh(variant, mean.value, xerr=mean.half_width, color=f"C{number}", alpha=0.6, capsize=3)
        bars.plot(own, [variant] * len(own), "k.", markersize=4)
    starts = [one.losses[0] for found in results.values() for one in found if one.losses[0] is not None]
    if starts:
        losses.axhline(statistics.fmean(starts), color="grey", linestyle=":", label="before the first step")
    losses.set(title="final loss", xlabel="learning rate", ylabel="nats a token", xscale="log")
    losses.legend(fontsize="small")
    bars.set(title="LR sensitivity", xlabel="mean nats above the best rate's loss (dots: seeds)")
    bars.set_xlim(left=0)
    bars.invert_yaxis()


def _draw_curve(axes: "Axes", by_rate: ByRate, colour: str, variant: str) -> None:
    means = [mean_of([bounded_loss(one) for one in found]) for found in by_rate.values()]
    axes.plot(list(by_rate), [mean.value for mean in means], "o-", color=colour, markersize=4, label=variant)
    axes.fill_between(
        list(by_rate), [mean.low for mean in means], [mean.high for mean in means], color=colour, alpha=0.15
    )


EXPERIMENT = Experiment(
    name="sensitivity",
    question="how much does the final loss depend on the learning rate, with and without QK-norm, z-loss and warm-up?",
    definitions=(
        "LR sensitivity (Wortsman et al. 2023, arXiv 2309.14322): the mean over the learning rates of the final loss "
        f"minus the lowest of them, by seed; their range, {rate_text(RATES[0])} to {rate_text(RATES[-1])}, in steps of "
        f"half a decade. Final loss: the mean training loss of the last {100 * LAST_SHARE:.0f} % of the steps, on text "
        "not seen before, and never more than the loss before the first step: a diverged run counts as an untrained "
        f"one. `{PLAIN}` has a warm-up over the first tenth and neither "
        "QK-norm nor z-loss (weight 1e-4); each other variant changes one thing. AdamW, cosine decay to a tenth, "
        "clipping at norm 1. Differences are taken seed by seed. From the best of all: the same mean, but from the "
        "lowest loss of all variants, since one that is as bad at every rate is not sensitive. The paper's models are "
        "far larger and train for far longer, so that attention and output logits have time to grow."
    ),
    overrides=("training.max_steps=200", "schedule.warmup_steps=20"),
    arms=tuple(
        Arm(
            name=arm_name(variant, rate), overrides=(*overrides, f"optimizer.learning_rate={rate_text(rate)}")
        )
        for variant, overrides in VARIANTS.items()
        for rate in RATES
    ),
    seeds=4,
    short=Short(
        seeds=2,
        # No warm-up of its own: it would be laid over that of the variant without.
        overrides=("model.num_layers=2", "model.hidden_size=64", "training.max_steps=60"),
        arms=tuple(arm_name(variant, rate) for variant in VARIANTS for rate in (1e-3, 1e-2, 1e-1)),
    ),
    tables=tables,
    claims=claims,
    draw=draw,
    figure_inches=(11.0, 4.5),
)
