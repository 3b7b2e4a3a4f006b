"""A stretch of a run's data gone bad, so that the monitor's policy takes the run back."""

from functools import partial

import torch
from torch import Tensor, nn

from minigpt.training import pretrain
from minigpt.training.loop import Outcome, train
from minigpt.training.run import Run

FIRST_STEP, STEPS, WINDOWS_PER_STEP = 35, 10, 8
_FROM, _UNTIL = (FIRST_STEP - 1) * WINDOWS_PER_STEP, (FIRST_STEP - 1 + STEPS) * WINDOWS_PER_STEP


def spoil_data() -> None:
    """The runs of this process train on random targets within the stretch: the same ones for the same windows."""
    pretrain.train = _train_on_bad_data  # type: ignore[attr-defined]


def _train_on_bad_data(run: Run) -> Outcome:
    run.model.register_forward_pre_hook(partial(_spoil, run))
    return train(run)


def _spoil(run: Run, module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    window = run.position.window
    if len(arguments) < 2 or not module.training or not _FROM <= window < _UNTIL:
        return None
    inputs_BT, targets_BT = arguments
    generator = torch.Generator().manual_seed(window)
    return inputs_BT, torch.randint(0, 256, targets_BT.shape, generator=generator)
