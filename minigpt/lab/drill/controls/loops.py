"""Loops that stop, go on, pause, freeze and unfreeze on purpose."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.drill.scenario import Control
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class Resumed(Control):
    """The run is stopped and resumed exactly, with the monitor's state or without."""

    at: tuple[int, ...] = (180,)
    with_state: bool = True

    def before_step(self, training: Training) -> None:
        if training.step not in self.at:
            return
        weights = copy.deepcopy(training.model.state_dict())
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in training.optimizers]
        training.model.load_state_dict(weights)
        training.optimizers = training.setting.build_optimizers(training.model)
        for optimizer, state in zip(training.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        training.watch.resume(with_state=self.with_state)


@dataclass(frozen=True, kw_only=True)
class Frozen(Control):
    """Parameters are frozen before the optimizer is built, and perhaps set free later."""

    prefix: str = "embedding."
    freed_at: int | None = None
    declared: bool = False

    def before_build(self, training: Training) -> None:
        self._set(training, trainable=False)

    def before_step(self, training: Training) -> None:
        if training.step == self.freed_at:
            freed = self._set(training, trainable=True)
            optimizer = training.optimizers[-1]
            optimizer.add_param_group({"params": freed})
            if self.declared:
                training.watch.declare_change()

    def _set(self, training: Training, *, trainable: bool) -> list[torch.nn.Parameter]:
        named = training.model.named_parameters()
        chosen = [parameter for name, parameter in named if name.startswith(self.prefix)]
        for parameter in chosen:
            parameter.requires_grad_(trainable)
        return chosen


@dataclass(frozen=True, kw_only=True)
class Pauses(Control):
    """Every `period` steps an evaluation takes as long as many steps."""

    period: int = 50

    def after_update(self, training: Training) -> None:
        if training.step % self.period == 0:
            training.evaluate(training.model)
            training.pause(0.2)


@dataclass(frozen=True, kw_only=True)
class Dip(Control):
    """At one step the gradients are a thousandth of their size: the users' own example."""

    at: int = 14

    def loss(self, training: Training, loss: Tensor) -> Tensor:
        return loss

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        return loss * 1e-3 if training.step == self.at else loss


@dataclass(frozen=True, kw_only=True)
class ScaledLoss(Control):
    """The loss is scaled down throughout, and eps with it: Adam does not care."""

    factor: float = 1e-7

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        return loss * self.factor


CONTROLS: list[Control] = [
    Resumed(name="resumed", setting=Setting(steps=450), at=(130, 300)),
    Resumed(name="resumed_without_state", setting=Setting(steps=450), at=(15, 200), with_state=False),
    Resumed(
        name="resumed_without_state_muon",
        setting=Setting(steps=350, optimizer="muon"),
        with_state=False,
    ),
    Frozen(name="frozen_embedding", setting=Setting(steps=400)),
    Frozen(name="block_set_free", prefix="blocks.0.", freed_at=200, setting=Setting(steps=400)),
    Frozen(
        name="block_set_free_declared",
        prefix="blocks.0.",
        freed_at=200,
        declared=True,
        setting=Setting(steps=400),
    ),
    Pauses(name="evaluation_pauses", setting=Setting(steps=400)),
    Dip(name="dip_at_step_14", setting=Setting(steps=400)),
    ScaledLoss(name="loss_scaled_down", setting=Setting(steps=400, eps=1e-15)),
]
