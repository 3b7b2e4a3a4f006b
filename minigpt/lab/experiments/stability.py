"""`lab stability`: what each measure does for training at a learning rate where it matters."""

import math
import statistics
from typing import TYPE_CHECKING

from minigpt.lab.experiments.drawing import draw_losses
from minigpt.lab.experiments.experiment import Arm, Experiment, Results, Short
from minigpt.lab.experiments.intervals import Share, mean_of
from minigpt.lab.experiments.outcome import LAST_SHARE, RISE, SMOOTHED_STEPS, WORTH
from minigpt.lab.experiments.stability_claims import (
    ALL,
    CLIPPING,
    NONE,
    WARMUP,
    blow_ups,
    claims,
    sound,
    target_loss,
)
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.verdicts import verdict_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tables(results: Results) -> list[Table]:
    """A row an arm."""
    target = target_loss(results)
    rows: list[list[Cell]] = []
    for name, found in results.items():
        trained = sound(found)
        steps = [one.steps_to(target) for one in found]
        reached = [step for step in steps if step is not None]
        rows.append(
            [
                name,
                blow_ups(found),
                ", ".join(sorted({one.blew_up for one in found if one.blew_up})) or "-",
                Share(sum(one.learnt_nothing for one in found), len(found)),
                mean_of([one.final_loss for one in found if math.isfinite(one.final_loss)]),
                mean_of([one.final_loss for one in trained]) if trained else None,
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
        "learnt nothing",
        "final loss",
        "of those that trained",
        f"steps to {target:.2f}" if math.isfinite(target) else "steps to a loss",
        "the monitor's verdict",
    )
    return [
        columns_of(head, rows, "Blow-ups, final training loss (nats a token, mean and 95 % interval), speed")
    ]


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
        f"training loss averaged over {SMOOTHED_STEPS} steps rose {RISE:g} nat above its lowest. Learnt nothing: it "
        f"ended less than {WORTH:g} nats below the entropy of the tokens' frequencies; the others trained. Final loss: "
        f"the mean of the last {100 * LAST_SHARE:.0f} % of the steps. The first three arms are Post-Norm in fp32, as "
        "the users' table implies; `everything` is Pre-Norm with clipping, warm-up, fp16 autocast and GradScaler. All "
        "have one learning rate, cosine decay, and AdamW with the users' betas; 1.5e-3, unless --set says another, is "
        "a rate at which a Post-Norm model of this size trains or does not by chance. MiniGPT calls off an update "
        "whose gradient is not finite, in "
        "every arm: where a plain loop ends in NaN, these runs stop."
    ),
    overrides=(
        "model.num_layers=6",
        "optimizer.learning_rate=1.5e-3",
        "optimizer.betas=[0.9,0.999]",
        "training.tokens_per_step=1024",
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
    short=Short(
        seeds=2,
        overrides=(
            "model.num_layers=2",
            "model.hidden_size=64",
            "model.context_length=64",
            "training.tokens_per_step=512",
            "training.max_steps=60",
        ),
    ),
    tables=tables,
    claims=claims,
    draw=draw,
)
