"""`lab init`: what the first weights decide, from the first gradient to the last loss."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minigpt.lab.experiments.drawing import draw_losses
from minigpt.lab.experiments.experiment import Arm, Claim, Experiment, Held, Results, Short
from minigpt.lab.experiments.initializations import (
    FILLS,
    KAIMING,
    TORCH,
    XAVIER,
    Fill,
    fill_blocks,
    fill_embedding,
    normal,
)
from minigpt.lab.experiments.intervals import Ratio, mean_of
from minigpt.lab.experiments.layers import look_at_layers, number
from minigpt.lab.experiments.outcome import LAST_SHARE, SMOOTHED_STEPS, Outcome
from minigpt.lab.experiments.pairs import loss_difference, signed
from minigpt.lab.experiments.ratios import ratio_of
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minigpt.training.run import Run


class School(NamedTuple):
    """How the model's matrices are filled; None: as MiniGPT has them."""

    blocks: Fill | None = None
    embedding: Fill | None = None


OURS, FLAT = "0.02, outputs / sqrt(2 layers)", "0.02"
SCHOOLS: Mapping[str, School] = {
    OURS: School(),
    FLAT: School(normal(0.02)),
    XAVIER: School(FILLS[XAVIER]),
    KAIMING: School(FILLS[KAIMING]),
    "0.0002": School(normal(0.0002)),
    "0.002": School(normal(0.002)),
    "0.2": School(normal(0.2)),
    "1": School(normal(1.0)),
    TORCH: School(FILLS[TORCH], normal(1.0)),
}


def fill_and_look(run: "Run", school: str) -> Mapping[str, Any]:
    """Give the run the school's first weights, and look at it layer by layer; `guessing` is ln V."""
    how = SCHOOLS[school]
    if how.blocks is not None:
        fill_blocks(run.model, how.blocks, run.config.seed)
    if how.embedding is not None:
        fill_embedding(run.model, how.embedding, run.config.seed)
    return {**look_at_layers(run), "guessing": math.log(run.model.vocab_size)}


EVEN = 2.0
"""Variances of two layers within this factor are called equal."""
WORSE = 0.1
"""Nats of final loss above the best arm's, from which first weights are called bad."""


def tables(results: Results) -> list[Table]:
    """What the first weights make of the first batch, and what became of them."""
    return [_starts(results), _runs(results)]


def _starts(results: Results) -> Table:
    rows: list[list[Cell]] = []
    for name, found in results.items():
        looks = [one.before for one in found]
        rows.append(
            [
                name,
                mean_of([number(look["loss"]) for look in looks]),
                mean_of([number(look["loss"]) - look["guessing"] for look in looks]),
                *(
                    mean_of([number(look[kind][block]) for look in looks])
                    for kind in ("blocks", "stream", "branch")
                    for block in (0, -1)
                ),
            ]
        )
    head = (
        "first weights",
        "loss",
        "above ln V",
        "gradient, first block",
        "gradient, last",
        "stream, first block",
        "stream, last",
        "branch, first block",
        "branch, last",
    )
    return columns_of(head, rows, "At the start: loss, gradient norms, RMS of activations", ".3g")


def _runs(results: Results) -> Table:
    target = target_loss(results)
    rows: list[list[Cell]] = []
    for name, found in results.items():
        steps = [step for one in found if (step := one.steps_to(target)) is not None]
        rows.append(
            [
                name,
                ", ".join(sorted({one.blew_up for one in found if one.blew_up})) or "-",
                mean_of([one.final_loss for one in found]),
                f"{statistics.median(steps):.0f} ({len(steps)} of {len(found)})"
                if steps
                else f"- (0 of {len(found)})",
                verdict_text(found),
            ]
        )
    head = ("first weights", "blown up", "final loss", f"steps to {target:.2f}", "the monitor's verdict")
    return columns_of(
        head, rows, "Trained: final training loss (nats a token, mean and 95 % interval), speed"
    )


def target_loss(results: Results) -> float:
    """The final loss of the arm in the middle: about half of the arms come to it."""
    finals = [statistics.median(one.final_loss for one in found) for found in results.values() if found]
    finite = [loss for loss in finals if math.isfinite(loss)]
    return statistics.median_high(finite) if finite else math.nan


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
    share = f"{runs - len(wrong)} of {runs} right"
    held: Held = "held" if not wrong else "held in part" if len(wrong) < runs / 2 else "did not hold"
    return Claim(
        text=f"the monitor speaks of first weights that cost {WORSE} nats or more (by more than chance), and of no "
        "others (ours)",
        held=held,
        found=f"bad here: {', '.join(bad) or 'none'}; {share}{'; ' if wrong else ''}{'; '.join(wrong[:6])}.",
    )


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


def draw(results: Results, figure: "Figure") -> None:
    """Gradients and the stream by block at the start, then the losses."""
    gradients, stream, losses = figure.subplots(1, 3)
    for place, found in enumerate(results.values()):
        for one in found:
            for axes, kind in ((gradients, "blocks"), (stream, "stream")):
                values = [number(value) for value in one.before[kind]]
                axes.plot(range(1, len(values) + 1), values, color=f"C{place % 10}", alpha=0.6)
    gradients.set(title="gradient norm by block, at the start", xlabel="block", yscale="log")
    stream.set(title="RMS of each block's output, at the start", xlabel="block", yscale="log")
    draw_losses(losses, results)
    # Of all three panels; nine arms would cover the curves.
    losses.legend().remove()
    figure.legend(*losses.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    # The worst begin at many times ln V: the others would be one line.
    guessing = [one.before["guessing"] for found in results.values() for one in found]
    lowest = [min(one.smoothed) for found in results.values() for one in found if one.blew_up is None]
    if guessing and lowest:
        losses.set_ylim(0.95 * min(lowest), 1.15 * max(guessing))


EXPERIMENT = Experiment(
    name="init",
    question="what do the first weights decide: the first loss, the gradients by depth, the training?",
    definitions=(
        f"All matrices of the blocks are N(0, std) with the std that names the arm; {OURS!r} is MiniGPT's own: the two "
        "matrices of a block that write into the stream are divided by sqrt(2 layers). Xavier: std sqrt(2 / (inputs + "
        "outputs)); Kaiming: sqrt(2 / inputs). 0.0002 and 1 are far too small and far too large on purpose: a hundred "
        "times smaller than usual, and more than ten times what keeps a matrix from amplifying. The embedding and the "
        f"head, which are one matrix, are MiniGPT's in all arms but {TORCH!r}: what a model has whose author gives it "
        "no weights, Linear U(+-1 / sqrt(inputs)) and Embedding N(0, 1). All are Pre-Norm with RMSNorm. Gradient "
        "norms are of a block's parameters together, stream is what a block puts out, branch what its SwiGLU adds, "
        "all on the first step's windows. Final loss: the mean of the last "
        f"{100 * LAST_SHARE:.0f} % of the steps. Steps: to the middle arm's final loss, of the loss averaged over "
        f"{SMOOTHED_STEPS} steps."
    ),
    overrides=("model.num_layers=8",),
    arms=tuple(Arm(name=name, before=partial(fill_and_look, school=name)) for name in SCHOOLS),
    seeds=3,
    short=Short(
        seeds=1,
        overrides=("model.num_layers=4", "model.hidden_size=64", "training.max_steps=40"),
    ),
    tables=tables,
    claims=claims,
    draw=draw,
    figure_inches=(15.0, 5.0),
)
