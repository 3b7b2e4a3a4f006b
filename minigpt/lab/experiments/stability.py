"""`lab stability`: what each measure does for training at a learning rate where it matters."""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from minigpt.lab.experiments.drawing import draw_losses
from minigpt.lab.experiments.experiment import Arm, Claim, Experiment, Held, Results, Short
from minigpt.lab.experiments.intervals import Share, mean_of
from minigpt.lab.experiments.outcome import LAST_SHARE, RISE, SMOOTHED_STEPS, Outcome
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_claim, verdict_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE, CLIPPING, WARMUP, ALL = "no measures", "clipping", "clipping + warm-up", "everything"
_CLAIMED = {NONE: (8, "NaN"), CLIPPING: (2, "2.3"), WARMUP: (0, "2.1"), ALL: (0, "1.9")}
"""Of ten runs, how many blow up, and the final loss: the users' table."""


def tables(results: Results) -> list[Table]:
    """A row an arm."""
    target = target_loss(results)
    rows: list[list[Cell]] = []
    for name, found in results.items():
        sound = [one for one in found if one.blew_up is None]
        steps = [one.steps_to(target) for one in found]
        reached = [step for step in steps if step is not None]
        rows.append(
            [
                name,
                blow_ups(found),
                ", ".join(sorted({one.blew_up for one in found if one.blew_up})) or "-",
                mean_of([one.final_loss for one in found if math.isfinite(one.final_loss)]),
                mean_of([one.final_loss for one in sound]) if sound else None,
                f"{statistics.median(reached):.0f} ({len(reached)} of {len(steps)})"
                if reached
                else f"- (0 of {len(steps)})",
                verdict_text(found),
            ]
        )
    head = (
        "arm",
        "blown up",
        "how",
        "final loss",
        "of sound runs",
        f"steps to {target:.2f}",
        "the monitor's verdict",
    )
    return [
        columns_of(head, rows, "Blow-ups, final training loss (nats a token, mean and 95 % interval), speed")
    ]


def blow_ups(found: Sequence[Outcome]) -> Share:
    """How many of the runs blew up."""
    return Share(sum(one.blew_up is not None for one in found), len(found))


def target_loss(results: Results) -> float:
    """The final loss of the worst arm, by its median over the runs that end with a finite loss."""
    finals = [
        [one.final_loss for one in found if math.isfinite(one.final_loss)] for found in results.values()
    ]
    return max((statistics.median(values) for values in finals if values), default=math.nan)


def claims(results: Results) -> list[Claim]:
    """One a row of the users' table, then the order of the losses, then the monitor."""
    found = [_blow_up_claim(name, results[name]) for name in _CLAIMED if name in results]
    return [*found, _loss_claim(results), verdict_claim(results)]


def _blow_up_claim(name: str, found: Sequence[Outcome]) -> Claim:
    claimed = _CLAIMED[name][0]
    share = blow_ups(found)
    low, high = share.interval
    inside = low <= claimed / 10 <= high
    return Claim(
        text=f"{name}: {claimed} of 10 runs blow up",
        held="held" if inside else "did not hold",
        found=f"{share.text()} did" + ("" if inside else f"; {claimed}/10 lies outside that interval") + ".",
    )


def _loss_claim(results: Results) -> Claim:
    """The final losses fall from arm to arm, each time by more than chance."""
    means = {name: mean_of([one.final_loss for one in found]) for name, found in results.items() if found}
    known = [(name, mean) for name, mean in means.items() if math.isfinite(mean.value)]
    falls = [first.low > second.high for (_, first), (_, second) in pairwise(known)]
    held: Held = "held" if falls and all(falls) else "held in part" if any(falls) else "did not hold"
    said = ", ".join(f"{name} {mean.text()}" for name, mean in known)
    return Claim(
        text="with each measure the final loss is lower (NaN, 2.3, 2.1, 1.9)",
        held=held,
        found=f"{said or 'no run ended with a finite loss'}; intervals that do not touch count as lower.",
    )


def draw(results: Results, figure: "Figure") -> None:
    """Losses on the left, gradient norms on the right."""
    losses, norms = figure.subplots(1, 2)
    draw_losses(losses, results)
    for number, found in enumerate(results.values()):
        for one in found:
            values = [math.nan if norm is None else norm for norm in one.grad_norms]
            norms.plot(range(1, len(values) + 1), values, color=f"C{number}", alpha=0.3, linewidth=0.8)
    norms.set(title="gradient norm before clipping", xlabel="step", yscale="log")


EXPERIMENT = Experiment(
    name="stability",
    question="how many runs blow up, and what do clipping, warm-up, Pre-Norm and mixed precision change?",
    definitions=(
        "Blown up: a loss or gradient was not finite (but for overflows that the loss scaler answers), or the "
        f"training loss averaged over {SMOOTHED_STEPS} steps rose {RISE:g} nat above its lowest. Final loss: the mean "
        f"of the last {100 * LAST_SHARE:.0f} % of the steps. The first three arms are Post-Norm in fp32, as the users' "
        "table implies; `everything` is Pre-Norm with clipping, warm-up, fp16 autocast and GradScaler. All have one "
        "learning rate, cosine decay, and AdamW. MiniGPT calls off an update whose gradient is not finite, in every "
        "arm: where a plain loop ends in NaN, these runs stop."
    ),
    overrides=(
        "model.num_layers=8",
        "optimizer.learning_rate=1e-2",
        "training.max_steps=300",
    ),
    arms=(
        Arm(
            name=NONE,
            overrides=("model.norm_position=post", "training.max_grad_norm=null", "schedule.warmup_steps=0"),
        ),
        Arm(name=CLIPPING, overrides=("model.norm_position=post", "schedule.warmup_steps=0")),
        Arm(name=WARMUP, overrides=("model.norm_position=post", "schedule.warmup_steps=30")),
        Arm(name=ALL, overrides=("schedule.warmup_steps=30", "training.mixed_precision=fp16")),
    ),
    seeds=10,
    short=Short(seeds=2, overrides=("model.num_layers=4", "model.hidden_size=64", "training.max_steps=40")),
    tables=tables,
    claims=claims,
    draw=draw,
)
