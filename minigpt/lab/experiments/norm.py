"""`lab norm`: Pre-Norm against Post-Norm as a model grows deeper, with warm-up and without."""

import statistics
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.initializations import FILLS, blocks_filled
from minigpt.lab.experiments.initializations import XAVIER as XAVIER_FILL
from minigpt.lab.experiments.intervals import Share, mean_of
from minigpt.lab.experiments.layers import look_at_layers, number
from minigpt.lab.experiments.norm_claims import claims_on
from minigpt.lab.experiments.norm_measures import (
    COLD,
    OWN,
    POST,
    PRE,
    READINGS,
    WARM,
    XAVIER,
    Case,
    at_start,
    block_norms,
    depths_in,
    duels_in,
    failed,
    loss_difference,
    speed_ratio,
    spread,
    variance_over_layers,
    variance_over_steps,
    variance_ratio,
)
from minigpt.lab.experiments.outcome import LAST_SHARE, SMOOTHED_STEPS, WORTH
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from minigpt.training.run import Run

DEPTHS = (4, 12, 48)
RATES = ("1e-3", "3e-3")
WARMUP_STEPS = {COLD: 0, WARM: 40}
CASES = tuple(
    Case(depth, norm, rate, warm_up)
    for depth, rate, warm_up, norm in product(DEPTHS, RATES, (COLD, WARM), (PRE, POST))
)


def look_at_both_starts(run: "Run") -> Mapping[str, Any]:
    """The layers under the run's own first weights, and under Xavier's, which are taken away again; what it reads."""
    own = look_at_layers(run)
    with blocks_filled(run.model, FILLS[XAVIER_FILL], run.config.seed):
        return {OWN: own, XAVIER: look_at_layers(run)}


def tables(results: Results) -> list[Table]:
    """The gradients at the start, the runs, and the one norm beside the other."""
    return [_starts(results), _runs(results), _ratios(results)]


def _starts(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for depth, norm, weights in product(depths_in(results, CASES), (PRE, POST), (OWN, XAVIER)):
        looks = [one.before[weights] for one in at_start(results, CASES, depth, norm)]
        blocks = [block_norms(look) for look in looks]
        rows.append(
            [
                f"{depth} layers, {norm}",
                {OWN: "MiniGPT's", XAVIER: "Xavier"}[weights],
                mean_of([number(look["loss"]) for look in looks]),
                mean_of([norms[0] for norms in blocks]),
                mean_of([norms[-1] for norms in blocks]),
                mean_of([spread(look) for look in looks]),
                mean_of([variance_over_layers(look) for look in looks]),
            ]
        )
    head = ("model", "weights", "loss", "first block", "last block", "largest : smallest", "variance")
    return columns_of(head, rows, "At the start: norms of the gradient, by block", ".3g")


def _runs(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            Share(sum(failed(one) for one in found), len(found)),
            mean_of([one.final_loss for one in found]),
            mean_of([block_norms(one.after)[0] for one in found]),
            mean_of([block_norms(one.after)[-1] for one in found]),
            mean_of([spread(one.after) for one in found]),
            mean_of([variance_over_layers(one.after) for one in found]),
            mean_of([variance_over_steps(one) for one in found]),
            verdict_text(found),
        ]
        for name, found in results.items()
    ]
    head = (
        "arm",
        "failed",
        "final loss",
        "first block",
        "last block",
        "largest : smallest",
        "variance over layers",
        "over steps",
        "the monitor's verdict",
    )
    return columns_of(head, rows, "Trained: final loss, and gradients after the last step", ".3g")


def _ratios(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [
            duel.post.setting,
            *(variance_ratio(results, duel, reading) for reading in READINGS),
            speed_ratio(results, duel),
            loss_difference(results, duel.post, duel.pre),
        ]
        for duel in duels_in(results, CASES)
    ]
    head = ("setting", *(f"variance {reading}" for reading in READINGS), "steps", "loss, difference")
    return columns_of(head, rows, "Post-Norm : Pre-Norm, seed by seed (geometric mean, 95 % interval)", ".2f")


def draw(results: Results, figure: "Figure") -> None:
    """Gradients by block at the start under both first weights, then final losses over depth."""
    own, xavier, *losses = figure.subplots(1, 2 + len(RATES))
    _draw_start(own, results, OWN, "at the start, MiniGPT's weights")
    _draw_start(xavier, results, XAVIER, "at the start, Xavier's weights")
    for axes in losses[1:]:
        # Before anything is drawn: the limits are those of both then.
        axes.sharey(losses[0])
    for axes, rate in zip(losses, RATES, strict=True):
        _draw_finals(axes, results, rate)


def _draw_finals(axes: "Axes", results: Results, rate: str) -> None:
    for norm, warm_up in product((PRE, POST), (COLD, WARM)):
        cases = [Case(depth, norm, rate, warm_up) for depth in DEPTHS]
        found = {case.depth: results[case.name] for case in cases if results.get(case.name)}
        colour, line = _COLOURS[norm], "--" if warm_up == COLD else "-"
        for depth, runs in found.items():
            axes.plot([depth] * len(runs), [one.final_loss for one in runs], ".", color=colour, alpha=0.4)
        if found:
            means = [statistics.fmean(one.final_loss for one in runs) for runs in found.values()]
            axes.plot(list(found), means, line, color=colour, label=f"{norm}, {warm_up}")
    axes.set(title=f"final loss, learning rate {rate}", xlabel="layers", ylabel="nats a token", xscale="log")
    axes.set_xticks(DEPTHS, labels=[str(depth) for depth in DEPTHS])
    axes.minorticks_off()
    if axes.lines:
        axes.legend(fontsize="small")


_COLOURS = {PRE: "C0", POST: "C3"}


def _draw_start(axes: "Axes", results: Results, weights: str, title: str) -> None:
    """One line a depth and norm, the first seed's: fainter the shallower."""
    depths = depths_in(results, CASES)
    for norm, (rank, depth) in product((PRE, POST), enumerate(depths, 1)):
        norms = block_norms(at_start(results, CASES, depth, norm)[0].before[weights])
        places = [(index + 1) / len(norms) for index in range(len(norms))]
        label = norm if depth == depths[-1] else None
        axes.plot(places, norms, color=_COLOURS[norm], alpha=rank / len(depths), label=label)
        axes.annotate(str(depth), (places[0], norms[0]), fontsize="x-small", ha="right")
    axes.set(title=title, xlabel="block / layers (1: the last)", ylabel="gradient norm", yscale="log")
    if axes.lines:
        axes.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="norm",
    question="what do Pre-Norm and Post-Norm do to gradients and training as a model grows deeper?",
    definitions=(
        "Gradient norms are of a block's parameters together, on the windows of the first step; at the end on the same "
        "windows. Variance over the layers: of the blocks' norms around their mean; over the steps: of the whole "
        "gradient's norm, before clipping, in the second half of the run; where all gradients are smaller, both are, "
        "while largest : smallest is not. Steps: to the final loss of the worse of the two, of the loss averaged over "
        f"{SMOOTHED_STEPS} steps. Final loss: the mean of the last "
        f"{100 * LAST_SHARE:.0f} % of the steps. Failed: blew up, or ended less than {WORTH:g} nats below what the "
        "tokens' frequencies alone give. All arms have width 64, RMSNorm, AdamW, cosine decay and clipping at 1; of "
        "the two learning rates the lower is one that deep Post-Norm models sometimes bear here, the higher the lab's "
        "usual one. They train from MiniGPT's own first weights, whose branches are so small at this width that a "
        "Post-Norm block begins as nearly the identity; Xavier's, those of arXiv 2002.04745, are looked at untrained."
    ),
    overrides=(
        "model.hidden_size=64",
        "training.max_steps=240",
        "training.tokens_per_step=512",
    ),
    arms=tuple(
        Arm(
            name=case.name,
            overrides=(
                f"model.num_layers={case.depth}",
                f"model.norm_position={'pre' if case.norm == PRE else 'post'}",
                f"optimizer.learning_rate={case.rate}",
                f"schedule.warmup_steps={WARMUP_STEPS[case.warm_up]}",
            ),
            before=look_at_both_starts,
            after=look_at_layers,
        )
        for case in CASES
    ),
    seeds=3,
    short=Short(
        seeds=2,
        overrides=("model.hidden_size=32", "model.context_length=32", "training.max_steps=40"),
        arms=tuple(
            case.name
            for case in CASES
            if case.depth < DEPTHS[-1] and (case.rate, case.warm_up) == (RATES[0], WARM)
        ),
    ),
    tables=tables,
    claims=lambda results: claims_on(results, CASES),
    draw=draw,
    figure_inches=(16.0, 4.2),
)
