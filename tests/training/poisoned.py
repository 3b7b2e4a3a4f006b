"""Tiny runs in which something goes wrong at a known step."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from minigpt.training.loop import train
from minigpt.training.run import Run
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.fan_out import FanOut
from tests.training.tiny_run import Workshop, before_step, opened_run

Poison = Callable[[Run], None]
FIRST_BAD = 6


class PoisonAfter(FanOut):
    """The run's sinks, and the poison right before the step FIRST_BAD; keeps events and signals."""

    def __init__(self, run: Run, poison: Poison) -> None:
        super().__init__([run.sinks])
        before_step(run, FIRST_BAD, lambda: poison(run))
        self.events: list[Event] = []
        self.signals: list[StepSignals] = []

    def step(self, signals: StepSignals, *, log: bool) -> None:
        super().step(signals, log=log)
        self.signals.append(signals)

    def event(self, event: Event) -> None:
        super().event(event)
        self.events.append(event)


def trained(workshop: Workshop, run_dir: Path, poison: Poison, *overrides: str) -> PoisonAfter:
    """A run that was poisoned, trained to its end."""
    with opened_run(workshop.config(*overrides), run_dir) as run:
        run.sinks = sinks = PoisonAfter(run, poison)
        train(run)
    return sinks


def weight_row(run: Run) -> None:
    with torch.no_grad():
        run.model.get_parameter("blocks.1.mlp.down.weight")[3, 2] = torch.nan


def one_activation(run: Run) -> None:
    """In the third sequence of every micro-batch."""

    def spoil(module: object, args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[2:3, 7, 0] = torch.inf
        return output

    run.model.get_submodule("blocks.0.mlp.gate").register_forward_hook(spoil)


def backward_only(run: Run) -> None:
    def spoil(module: object, args: object, output: Tensor) -> Tensor:
        return output + torch.sqrt((output - output.detach()).square())

    run.model.get_submodule("blocks.1.attention.query").register_forward_hook(spoil)


def too_large_for_fp16(run: Run) -> None:
    with torch.no_grad():
        run.model.get_parameter("blocks.1.mlp.up.weight").mul_(3e4)
        run.model.get_parameter("blocks.1.mlp.gate.weight").mul_(3e3)


def nothing(run: Run) -> None:
    """A healthy run."""
