"""A tiny run with a stretch of its data gone bad: what a person would have to be called for."""

from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.checkpoint.load import load_newest
from minigpt.config.run_config import RunConfig
from minigpt.training.loop import Outcome, train
from minigpt.training.run import Run
from tests.training.tiny_run import opened_run, read_lines

STEPS, WINDOWS_PER_STEP = 90, 8
ROLLBACK = ("monitor.policy.on_sustained=rollback", "monitor.policy.rollback_margin_steps=3")
TROUBLE = (
    f"training.max_steps={STEPS}",
    "training.eval_every_steps=1000",
    "checkpoint.every_steps=10",
    "schedule.kind=constant",
    "optimizer.learning_rate=0.003",
    # These findings alone, so that what other rules have to say about random targets does not matter here.
    "monitor.policy.act_on=[loss_spike,gradient_exploding]",
)
Stretch = tuple[int, int]
"""First and last window, as they come in the run, of data with random targets."""


def stretch(first_step: int, steps: int) -> Stretch:
    """What the steps from `first_step` (counted from 1) on read in a run without rollbacks."""
    return (first_step - 1) * WINDOWS_PER_STEP, (first_step - 1 + steps) * WINDOWS_PER_STEP


ONCE = stretch(first_step=45, steps=10)


def go_bad(run: Run, *bad: Stretch) -> None:
    """Targets within the stretches are random from now on: the same ones for the same windows."""

    def spoil(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        window = run.position.window
        if (
            len(arguments) < 2
            or not module.training
            or not any(start <= window < stop for start, stop in bad)
        ):
            return None
        inputs_BT, targets_BT = arguments
        generator = torch.Generator().manual_seed(window)
        return inputs_BT, torch.randint(0, 256, targets_BT.shape, generator=generator)

    run.model.register_forward_pre_hook(spoil)


def started(config: RunConfig, run_dir: Path, *bad: Stretch) -> Outcome:
    with opened_run(config, run_dir) as run:
        go_bad(run, *bad)
        return train(run)


def resumed(config: RunConfig, run_dir: Path, *bad: Stretch) -> Outcome:
    with opened_run(config, run_dir, load_newest(run_dir).state) as run:
        go_bad(run, *bad)
        return train(run)


def actions(run_dir: Path, name: str) -> list[dict[str, object]]:
    """The events of an action, in the order they were taken; of later discarded steps too."""
    events = read_lines(run_dir / "events.jsonl")
    return [event for event in events if (event["kind"], event["name"]) == ("action", name)]


TROUBLED_PROGRAM = """
import sys
from minigpt.cli.main import main
from minigpt.training import pretrain
from tests.training.troubled_run import ONCE, go_bad

healthy_train = pretrain.train

def train(run):
    go_bad(run, ONCE)
    return healthy_train(run)

pretrain.train = train
main()
"""
"""`minigpt` with the stretch ONCE of its data gone bad, as a process of its own runs it."""
LATE_TROUBLED_PROGRAM = TROUBLED_PROGRAM.replace(
    "main()\n",
    "from tests.training.tiny_run import built_with_reads\npretrain.build_run = built_with_reads(True)\nmain()\n",
)
"""The same, of which every step is read late."""
