"""`lab init`: what the first weights decide, from the first gradient to the last loss."""

import math
import statistics
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minigpt.lab.experiments.drawing import draw_losses
from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.init_claims import claims
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
from minigpt.lab.experiments.intervals import mean_of
from minigpt.lab.experiments.layers import look_at_layers, number
from minigpt.lab.experiments.outcome import LAST_SHARE, SMOOTHED_STEPS
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
