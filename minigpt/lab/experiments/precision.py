"""`lab precision`: what fp16, bf16 and loss scaling do to speed, memory, gradients and the loss."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from minigpt.lab.experiments.cost import has_peak, look_at_cost, memory_of, speed_of
from minigpt.lab.experiments.drawing import draw_losses
from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.intervals import Share, mean_of
from minigpt.lab.experiments.loss_scale import scale_by, without_scale
from minigpt.lab.experiments.outcome import LAST_SHARE, Outcome
from minigpt.lab.experiments.pairs import loss_difference
from minigpt.lab.experiments.precision_claims import BARE, BF16, DYNAMIC, FP32, LARGE, STATIC, claims
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.turns import ROUNDS
from minigpt.lab.experiments.underflow import (
    ALL,
    LARGER_STEP,
    SCALES,
    flushed_share,
    look_at_underflow,
    scale_text,
)
from minigpt.lab.experiments.verdicts import verdict_text
from minigpt.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def before_fp32(run: Run) -> dict[str, Any]:
    """The underflow at the first weights."""
    return {"underflow": look_at_underflow(run)}


def after_fp32(run: Run) -> dict[str, Any]:
    """The underflow at the trained weights, then the cost."""
    underflow = look_at_underflow(run)
    return {"underflow": underflow, **look_at_cost(run)}


def tables(results: Results) -> list[Table]:
    """What the training came to, what a step costs, and what fp16 loses of a gradient."""
    found = results.get(FP32, ())
    return [_training_table(results), _cost_table(results), *([_underflow_table(found)] if found else [])]


def _training_table(results: Results) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            mean_of([one.final_loss for one in found]),
            None if name == FP32 or FP32 not in results else loss_difference(found, results[FP32]),
            Share(sum(one.blew_up is not None for one in found), len(found)),
            mean_of([float(len(one.skipped_steps)) for one in found]),
            verdict_text(found),
        ]
        for name, found in results.items()
    ]
    head = ("arm", "final loss", "less that of fp32", "blown up", "skipped updates", "the monitor's verdict")
    return columns_of(head, rows, "Training (loss in nats a token; mean and 95 % interval)")


def _cost_table(results: Results) -> Table:
    on_gpu = any(has_peak(one.after) for found in results.values() for one in found)
    kinds = {"saved for backward": "saved", "with weights and moments": "held"}
    kinds |= {"allocator's peak": "peak"} if on_gpu else {}
    rows: list[list[Cell]] = []
    for name, found in results.items():
        looks = [one.after for one in found]
        rate = mean_of([look["tokens"] / look["seconds"]["own"] / 1000 for look in looks])
        shares = [mean_of([memory_of(look, kind) for look in looks]).value for kind in kinds.values()]
        rows.append([name, rate, mean_of([speed_of(look) for look in looks]), *shares])
    head = ("arm", "thousand tokens/s", "speed over fp32", *kinds)
    return columns_of(head, rows, "What a step costs; memory as a share of what fp32 takes", ".2f")


def _underflow_table(found: Sequence[Outcome]) -> Table:
    """A row a moment and scale."""
    looks_at = _looks_at(found)
    groups = _groups(found)
    rows: list[list[Cell]] = []
    for moment, looks in looks_at.items():
        for scale in SCALES:
            errors = [look[scale_text(scale)][ALL]["error"] for look in looks]
            error = mean_of([math.nan if one is None else 100 * one for one in errors])
            rows.append(
                [moment, scale_text(scale), error, *(_percent(looks, scale, group) for group in groups)]
            )
    title = "What fp16 loses of the gradient, in percent: its error as a whole, and elements flushed to zero"
    return columns_of(("after", "scale", "error", *groups), rows, title, ".2g")


def _looks_at(found: Sequence[Outcome]) -> dict[str, list[Mapping[str, Any]]]:
    """By moment."""
    last = max(one.steps for one in found)
    return {
        "0 steps": [one.before["underflow"] for one in found],
        f"{last} steps": [one.after["underflow"] for one in found],
    }


def _groups(found: Sequence[Outcome]) -> list[str]:
    return list(found[0].after["underflow"][scale_text(1.0)])


def _percent(looks: Sequence[Mapping[str, Any]], scale: float, group: str) -> Cell:
    return mean_of([100 * flushed_share(look, scale, group) for look in looks])


def draw(results: Results, figure: "Figure") -> None:
    """Loss curves; the share flushed to zero by layer, a line a scale."""
    losses, shares = figure.subplots(1, 2)
    draw_losses(losses, results)
    found = results.get(FP32, ())
    if not found:
        return
    groups = [group for group in _groups(found) if group != ALL]
    for style, looks in zip(("--", "-"), _looks_at(found).values(), strict=True):
        for number, scale in enumerate(SCALES):
            heights = [
                mean_of([100 * flushed_share(look, scale, group) for look in looks]).value for group in groups
            ]
            label = f"scale {scale_text(scale)}" if style == "-" else None
            # Those that flush nothing lie on one another.
            width = 3.0 - 0.5 * number
            shares.plot(groups, heights, style, color=f"C{number}", linewidth=width, label=label)
    shares.set(
        title="gradient elements that fp16 flushes to zero\n(dashed: before the first step; solid: after the last)",
        ylabel="percent",
    )
    # Most are 0, which a logarithm has no place for.
    shares.set_yscale("symlog", linthresh=1e-3)
    shares.set_ylim(bottom=0)
    shares.tick_params(axis="x", rotation=30)
    shares.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


FP16 = ("training.mixed_precision=fp16",)

EXPERIMENT = Experiment(
    name="precision",
    question="what do fp16, bf16 and loss scaling change in speed, memory, gradients and the final loss?",
    definitions=(
        f"Final loss: the mean of the last {100 * LAST_SHARE:.0f} % of the steps; differences are taken seed by "
        "seed. Learning rate 1e-3: at the 3e-3 of the other experiments a difference in rounding alone moves a "
        "run's final loss by hundredths of a nat. fp16 and bf16 are autocast: weights, gradients, moments and the "
        "residual stream stay in fp32. Without scaling, 1024: MiniGPT's GradScaler is replaced by none, and by "
        f"one that never changes; an update that is not finite is called off in every arm. Scale 1/{LARGER_STEP}: "
        "a step has few tokens here, and the mean loss hands each a large share; the smaller scale makes the fp16 "
        f"numbers those of a micro-batch in a step of {LARGER_STEP} times the tokens. Flushed to zero: elements of "
        "the gradient of the first step's tokens, by the weights of the arm fp32, that are 0 by fp16 autocast at "
        "a scale and not in fp32; error: norm of the difference over the norm. MiniGPT's loss makes the head's "
        "gradient (tied to the embedding) from the summed loss, before any scale: a scale changes little there. "
        f"Speed: the loop's whole step, at learning rate 0, in turns with fp32 ({ROUNDS} rounds, medians), one "
        "training at a time. Saved for backward: bytes of all tensors that a micro-batch's forward pass keeps, "
        "counted; not the process's memory; the logits are not among them (the loss is made in chunks)."
    ),
    arms=(
        Arm(name=FP32, before=before_fp32, after=after_fp32),
        Arm(name=BF16, overrides=("training.mixed_precision=bf16",), after=look_at_cost),
        Arm(name=BARE, overrides=FP16, before=without_scale, after=look_at_cost),
        Arm(name=LARGE, overrides=FP16, before=partial(scale_by, scale=1 / LARGER_STEP), after=look_at_cost),
        Arm(name=STATIC, overrides=FP16, before=partial(scale_by, scale=1024.0), after=look_at_cost),
        Arm(name=DYNAMIC, overrides=FP16, after=look_at_cost),
    ),
    seeds=4,
    overrides=("optimizer.learning_rate=1e-3",),
    short=Short(
        seeds=2,
        overrides=("model.num_layers=2", "model.hidden_size=64", "training.max_steps=40"),
        arms=(FP32, LARGE, DYNAMIC),
    ),
    tables=tables,
    claims=claims,
    draw=draw,
    figure_inches=(12.0, 4.5),
    alone=True,
)
