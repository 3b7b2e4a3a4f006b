"""`lab accumulate`: micro-batches against the large batch: gradients, loss curves, memory, time."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.lab.experiments.accumulate_claims import ARMS, SIZES, WHOLE, claims, curve_differences
from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.intervals import mean_of
from minigpt.lab.experiments.outcome import LAST_SHARE, SMOOTHED_STEPS, Outcome
from minigpt.lab.experiments.pairs import loss_difference
from minigpt.lab.experiments.room import ROUNDS, TIMES, look_at_room
from minigpt.lab.experiments.splits import look_at_splits
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

APART = 0.001
"""Nats between two curves that a reader would call apart."""
MIB = 2**20


def tables(results: Results) -> list[Table]:
    """The trainings; gradients by micro-batch size; memory and time by way to train."""
    whole = results.get(WHOLE, ())
    looked = [_gradient_table(whole), _room_table(whole)] if whole else []
    return [_training_table(results, whole), *looked]


def _training_table(results: Results, whole: Sequence[Outcome]) -> Table:
    rows: list[list[Cell]] = []
    for name, found in results.items():
        pairs = list(zip(found, whole, strict=False)) if name != WHOLE else []
        curves = [curve_differences(one, other) for one, other in pairs]
        apart = [next((step for step, gap in enumerate(curve, 1) if gap > APART), None) for curve in curves]
        rows.append(
            [
                name,
                mean_of([one.final_loss for one in found]),
                loss_difference(found, whole) if pairs else None,
                max(max(curve) for curve in curves) if curves else None,
                ", ".join("never" if step is None else str(step) for step in apart) or "-",
                mean_of([1000 * one.seconds_per_step for one in found]),
                verdict_text(found),
            ]
        )
    head = (
        "arm",
        "final loss",
        f"less that of {WHOLE}",
        "largest difference of a step",
        f"first step {APART:g} apart",
        "ms a step",
        "the monitor's verdict",
    )
    return columns_of(head, rows, "Training (loss in nats a token; mean and 95 % interval)", ".4g")


def _gradient_table(whole: Sequence[Outcome]) -> Table:
    """Means over the seeds."""
    rows: list[list[Cell]] = []
    for size in whole[0].before["full"]:
        full, uneven = ([one.before[kind][size] for one in whole] for kind in ("full", "uneven"))
        shown = ((full, "sums"), (full, "error"), (full, "not_divided"), (uneven, "sums"), (uneven, "means"))
        cells = [mean_of([split[key] for split in splits]).value for splits, key in shown]
        rows.append([f"{int(next(iter(whole[0].before['full']))) // int(size)} x {size}", *cells])
    head = (
        "micro-batches",
        "from the undivided",
        "from fp64",
        "length, not divided",
        "uneven targets: sums",
        "uneven targets: mean of means",
    )
    return columns_of(head, rows, "The first step's gradient: relative differences (norm over norm)", ".2g")


def _room_table(whole: Sequence[Outcome]) -> Table:
    looks = [one.after for one in whole]
    names = list(looks[0]["ways"])
    base = names[0]
    on_gpu = looks[0]["ways"][base]["peak"] is not None
    rows: list[list[Cell]] = []
    for name in names:
        ways = [look["ways"][name] for look in looks]
        times = [look["ways"][name]["seconds"] / look["ways"][base]["seconds"] for look in looks]
        rows.append(
            [
                name,
                mean_of([way["held"] / MIB for way in ways]).value,
                ways[0]["held"] / looks[0]["ways"][base]["held"],
                *([mean_of([way["peak"] / MIB for way in ways])] if on_gpu else []),
                mean_of(
                    [1e6 * way["seconds"] / look["tokens"] for way, look in zip(ways, looks, strict=True)]
                ),
                mean_of(times),
            ]
        )
    head = (
        "batch",
        "MiB held",
        f"memory of {base}",
        *(["MiB at the peak"] if on_gpu else []),
        "microseconds a token",
        f"time of {base}",
    )
    return columns_of(head, rows, f"Memory and time for {TIMES} times the step's sequences", ".2f")


def draw(results: Results, figure: "Figure") -> None:
    """Losses over one another, their differences, memory by way."""
    losses, gaps, memory = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    whole = results.get(WHOLE, ())
    for number, (name, found) in enumerate(results.items()):
        # They lie on one another: each narrower than the one below.
        width = 6 / (1 + 2 * number)
        for one in found:
            steps = range(SMOOTHED_STEPS, SMOOTHED_STEPS + len(one.smoothed))
            label = name if one is found[0] else None
            losses.plot(steps, one.smoothed, color=f"C{number}", linewidth=width, label=label)
        pairs = zip(found, whole, strict=False) if name != WHOLE else ()
        curves = [curve_differences(one, other) for one, other in pairs]
        if curves:
            # No place for 0 on a logarithm.
            largest = [max(gap) or math.nan for gap in zip(*curves, strict=False)]
            gaps.plot(range(1, len(largest) + 1), largest, color=f"C{number}", linewidth=1, label=name)
    losses.set(
        title="training loss, a line a run",
        xlabel="step",
        ylabel=f"nats a token, mean of {SMOOTHED_STEPS} steps",
    )
    losses.legend(fontsize="small")
    gaps.set(
        title=f"difference from {WHOLE}\n(the largest over the seeds)",
        xlabel="step",
        ylabel="nats a token",
        yscale="log",
    )
    gaps.legend(fontsize="small")
    if whole:
        _draw_memory(memory, whole[0])


def _draw_memory(axes: "Axes", one: Outcome) -> None:
    ways = one.after["ways"]
    kind = "held" if next(iter(ways.values()))["peak"] is None else "peak"
    names = list(ways)
    axes.barh(names, [ways[name][kind] / MIB for name in names], color="C7")
    axes.axvline(ways[names[0]][kind] / MIB, color="C3", linewidth=1)
    axes.invert_yaxis()
    axes.set(
        title="memory of a batch", xlabel="MiB " + ("held" if kind == "held" else "at the allocator's peak")
    )


EXPERIMENT = Experiment(
    name="accumulate",
    question="do micro-batches train as the large batch does, and what do they save?",
    definitions=(
        "Every arm has the same tokens a step, seeds, windows and learning rate; only the sequences of a forward "
        f"pass differ. Final loss: the mean of the last {100 * LAST_SHARE:.0f} % of the steps. Gradients: of the "
        "first step's tokens at the first weights, in fp32, as the norm of a difference over the norm. From the "
        "undivided: MiniGPT's way, each micro-batch's summed loss over the targets of all; not divided: mean "
        "losses, each differentiated and nothing divided by their number. Uneven targets: each sequence keeps 1 "
        "to all of its targets, at random, as after padding, so that micro-batches count differently; the mean of "
        "their mean losses then weighs short ones too much (transformers did so until October 2024). Held: "
        "weights, gradients, moments and the bytes that a micro-batch's forward pass keeps for its backward pass, "
        "counted tensor by tensor; not the process's memory. Time: the loop's whole step on the same sequences, "
        f"at learning rate 0, all ways in turns ({ROUNDS} rounds, medians), one training at a time; `64 = 4 x 16` "
        "is an update of 64 sequences, 16 at once."
    ),
    arms=tuple(
        Arm(
            name=name,
            overrides=(f"training.micro_batch_size={size}",),
            before=look_at_splits if name == WHOLE else None,
            after=look_at_room if name == WHOLE else None,
        )
        for size, name in ARMS.items()
    ),
    seeds=3,
    short=Short(
        seeds=2,
        overrides=("model.num_layers=2", "model.hidden_size=64", "training.max_steps=40"),
        arms=(WHOLE, ARMS[SIZES[1]]),
    ),
    tables=tables,
    claims=claims,
    draw=draw,
    figure_inches=(15.0, 4.5),
    alone=True,
)
