"""Runs with something in their way: data gone bad, so that the policy takes them back; a signal in an evaluation."""

import signal
from functools import partial

import torch
from torch import Tensor, nn

from minigpt.data.loader import StepBatches
from minigpt.training import pretrain
from minigpt.training.loop import Outcome, train
from minigpt.training.run import Run

EVALUATED = 3
FIRST_STEP, STEPS, WINDOWS_PER_STEP = 35, 10, 8
_FROM, _UNTIL = (FIRST_STEP - 1) * WINDOWS_PER_STEP, (FIRST_STEP - 1 + STEPS) * WINDOWS_PER_STEP


def spoil_data() -> None:
    """The runs of this process train on random targets within the stretch: the same ones for the same windows."""
    pretrain.train = _train_on_bad_data  # type: ignore[attr-defined]


def _train_on_bad_data(run: Run) -> Outcome:
    run.model.register_forward_pre_hook(partial(_spoil, run))
    return train(run)


def stop_in_evaluation() -> None:
    """The runs of this process are asked to stop in the evaluation after step EVALUATED."""
    pretrain.train = _train_until_evaluation  # type: ignore[attr-defined]


def _train_until_evaluation(run: Run) -> Outcome:
    next_step = run.loader.next_step

    def stopping() -> StepBatches:
        if run.position.step == EVALUATED - 1:
            run.interrupt.signal = signal.SIGTERM
        return next_step()

    run.loader.next_step = stopping  # type: ignore[method-assign]
    return train(run)


def _spoil(run: Run, module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    window = run.position.window
    if len(arguments) < 2 or not module.training or not _FROM <= window < _UNTIL:
        return None
    inputs_BT, targets_BT = arguments
    generator = torch.Generator().manual_seed(window)
    return inputs_BT, torch.randint(0, 256, targets_BT.shape, generator=generator)
