"""`lab sensitivity`: how much the final loss depends on the learning rate, and what makes it depend less.

After Wortsman et al. 2023 (arXiv 2309.14322), who find in small models, at high rates, what large ones fail of.
"""

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.intervals import Share, mean_of
from minigpt.lab.experiments.outcome import LAST_SHARE
from minigpt.lab.experiments.rate_curves import (
    ByRate,
    Curves,
    best_rate,
    bounded_loss,
    difference,
    from_common_best,
    rate_text,
    sensitivities,
)
from minigpt.lab.experiments.sensitivity_claims import (
    NO_WARMUP,
    PLAIN,
    QK_NORM,
    RATES,
    Z_LOSS,
    arm_name,
    claims,
    curves_of,
)
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANTS: Mapping[str, tuple[str, ...]] = {
    PLAIN: (),
    QK_NORM: ("model.qk_norm=true",),
    Z_LOSS: ("model.z_loss_weight=1e-4",),
    NO_WARMUP: ("schedule.warmup_steps=0",),
}
"""Each differs from the first in one thing."""


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
