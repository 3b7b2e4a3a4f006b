"""NaN, infinity, and what fp16 does to numbers."""

from dataclasses import dataclass
from math import inf, nan
from typing import Any

from torch import Tensor, nn

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training

NOT_FINITE = ("nan_loss", "non_finite_gradient")
OVERFLOW = ("overflow_streak", "scale_collapse", "fp16_overflow")


@dataclass(frozen=True, kw_only=True)
class NanLoss(Fault):
    """The loss is NaN."""

    def loss(self, training: Training, loss: Tensor) -> Tensor:
        return loss * nan if self.active(training) else loss


@dataclass(frozen=True, kw_only=True)
class InfiniteActivation(Fault):
    """One number of a block's output is infinite."""

    block: int = 2

    def built(self, training: Training) -> None:
        def spoil(module: nn.Module, inputs: Any, output_BTD: Tensor) -> Tensor:
            if not self.active(training):
                return output_BTD
            spoilt = output_BTD.clone()
            spoilt[0, 0, 0] = inf
            return spoilt

        training.block(self.block).register_forward_hook(spoil)


@dataclass(frozen=True, kw_only=True)
class NonFiniteGradient(Fault):
    """One number of one gradient is `value`; the loss is as ever."""

    prefix: str = "blocks.1.mlp.up"
    value: float = nan

    def after_backward(self, training: Training) -> None:
        if self.active(training):
            training.gradients((self.prefix,))[0][0, 0] = self.value


@dataclass(frozen=True, kw_only=True)
class FlushedGradients(Fault):
    """fp16 without enough loss scaling: gradients under 6e-8 become zero, most of them here."""

    scale: float = 2.0**-17

    def after_backward(self, training: Training) -> None:
        if self.active(training):
            for gradient in training.gradients():
                gradient.copy_((gradient * self.scale).half().float() / self.scale)


@dataclass(frozen=True, kw_only=True)
class Overflows(Fault):
    """The scaled gradients overflow on every `period`-th step, whatever the scale."""

    period: int = 1
    scale_follows: bool = True
    """Whether scaler.update() is still called."""

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        if self.active(training) and (training.step - self.onset) % self.period == 0:
            weight = training.block(0).mlp.down.weight
            return loss + weight.sum() * inf
        return loss

    def built(self, training: Training) -> None:
        follow = training.update_scale

        def update_scale() -> None:
            if self.scale_follows or not self.active(training):
                follow()
            else:
                # What scaler.update() would also do: the next step may unscale again.
                training.scaler._per_optimizer_states.clear()

        training.update_scale = update_scale  # type: ignore[method-assign]


FP16 = Setting(precision="fp16")

FAULTS: list[Fault] = [
    NanLoss(name="nan_loss_once", lasting=False, steps_wrong=1, labels=NOT_FINITE),
    NanLoss(name="nan_loss_lasting", labels=NOT_FINITE),
    NanLoss(
        name="nan_loss_sgd",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0, shows_batch=False),
        onset=60,
        labels=NOT_FINITE,
    ),
    InfiniteActivation(name="inf_activation_once", lasting=False, steps_wrong=1, labels=NOT_FINITE),
    InfiniteActivation(name="inf_activation_lasting", block=0, labels=NOT_FINITE),
    NonFiniteGradient(name="nan_gradient_lasting", labels=NOT_FINITE),
    NonFiniteGradient(name="inf_gradient_once", value=inf, lasting=False, steps_wrong=1, labels=NOT_FINITE),
    FlushedGradients(
        name="gradients_flushed",
        labels=("gradient_underflow", "fp16_underflow", "gradient_vanishing", "dead_layer"),
        symptoms=("frozen_parameter",),
    ),
    Overflows(name="overflow_streak", setting=FP16, labels=OVERFLOW, symptoms=NOT_FINITE),
    Overflows(name="scale_collapse", setting=FP16, period=3, slow=True, labels=OVERFLOW, symptoms=NOT_FINITE),
    Overflows(name="scaler_stuck", setting=FP16, scale_follows=False, labels=OVERFLOW, symptoms=NOT_FINITE),
    Fault(
        name="weights_too_coarse",
        setting=Setting(precision="pure bf16", learning_rate=1e-5),
        healthy=Setting(learning_rate=1e-5),
        onset=1,
        slow=True,
        labels=("frozen_parameter", "no_update", "update_ratio_low", "update_too_small_for_precision"),
        symptoms=("loss_plateau",),
    ),
]
