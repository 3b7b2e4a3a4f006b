"""An optimizer whose memory or settings are wrong."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training

BLOWN_UP = ("loss_spike", "loss_divergence", "gradient_exploding", "weight_jump")


@dataclass(frozen=True, kw_only=True)
class StaleSecondMoment(Fault):
    """Adam's second moment stands at `factor` times what it was, as if the gradients had been far smaller."""

    factor: float = 1e-5

    def after_backward(self, training: Training) -> None:
        if not self.active(training):
            return
        for optimizer in training.optimizers:
            for parameter, state in optimizer.state.items():
                held = training.notes.setdefault(id(parameter), state["exp_avg_sq"] * self.factor)
                state["exp_avg_sq"].copy_(held)


@dataclass(frozen=True, kw_only=True)
class ScaledSecondMoment(Fault):
    """Adam's second moment is multiplied once, as by a load in the wrong unit; it heals by itself."""

    factor: float

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            for optimizer in training.optimizers:
                for state in optimizer.state.values():
                    state["exp_avg_sq"].mul_(self.factor)


@dataclass(frozen=True, kw_only=True)
class AbsurdWeightDecay(Fault):
    """A slipped digit in the weight decay."""

    weight_decay: float = 30.0

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            for optimizer in training.optimizers:
                for group in optimizer.param_groups:
                    group["weight_decay"] = self.weight_decay


@dataclass(frozen=True, kw_only=True)
class StateLost(Fault):
    """The optimizer is made anew in mid-run, as after a resume that forgot its state."""

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            for optimizer in training.optimizers:
                optimizer.state.clear()


@dataclass(frozen=True, kw_only=True)
class ZeroGradForgotten(Fault):
    """Gradients pile up from step to step."""

    def zero_grad(self, training: Training) -> bool:
        return not self.active(training)


@dataclass(frozen=True, kw_only=True)
class ZeroGradEveryOtherStep(Fault):
    """Every other zero_grad is left out."""

    def zero_grad(self, training: Training) -> bool:
        return not self.active(training) or training.step % 2 > 0


@dataclass(frozen=True, kw_only=True)
class NotNormalised(Fault):
    """The sum over micro-batches (or tokens) is taken for the mean."""

    factor: float = 8.0

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        return loss * self.factor if self.active(training) else loss


@dataclass(frozen=True, kw_only=True)
class WrongSign(Fault):
    """The objective is turned round: the loss is maximised."""

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        return -loss if self.active(training) else loss


@dataclass(frozen=True, kw_only=True)
class CorruptedRow(Fault):
    """A row of one matrix is overwritten, as by a flipped exponent bit."""

    value: float = 30.0

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            with torch.no_grad():
                training.block(1).mlp.down.weight[3] = self.value


@dataclass(frozen=True, kw_only=True)
class ReloadedWeights(Fault):
    """Weights of an earlier step are loaded into the running model; the optimizer goes on."""

    saved_at: int = 15

    def before_step(self, training: Training) -> None:
        if training.step == self.saved_at:
            state = training.model.state_dict()
            training.notes["saved"] = {name: value.clone() for name, value in state.items()}
        if training.step == self.onset:
            training.model.load_state_dict(training.notes["saved"])


@dataclass(frozen=True, kw_only=True)
class SwappedBlocks(Fault):
    """The weights of two blocks change places, as after a load under other names."""

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            first, second = training.block(0), training.block(1)
            kept = {name: value.clone() for name, value in first.state_dict().items()}
            first.load_state_dict(second.state_dict())
            second.load_state_dict(kept)


SGD = Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0)
RESCALED = ("gradient_scale_shift", "gradients_rescaled")
LEFTOVER = ("leftover_gradient", "zero_grad_forgotten")
JUMPED = ("weight_jump", "weights_changed_outside")

FAULTS: list[Fault] = [
    StaleSecondMoment(
        name="stale_second_moment",
        labels=("update_ratio_high", "optimizer_state_stale", "optimizer_state_lost"),
        symptoms=BLOWN_UP,
    ),
    ScaledSecondMoment(
        name="second_moment_too_small_once",
        setting=Setting(shows_batch=False),
        factor=1e-4,
        labels=("update_ratio_high", "optimizer_state_stale", "optimizer_state_lost"),
        symptoms=BLOWN_UP,
    ),
    ScaledSecondMoment(
        name="second_moment_too_large_once",
        factor=1e6,
        labels=("update_ratio_low", "optimizer_state_stale", "optimizer_state_lost"),
        symptoms=("frozen_parameter", "no_update", "loss_plateau"),
    ),
    AbsurdWeightDecay(
        name="absurd_weight_decay",
        labels=("weight_collapse", "weight_decay_too_high"),
        symptoms=("update_ratio_high", "weight_jump", "loss_divergence", "loss_spike", "loss_plateau"),
    ),
    AbsurdWeightDecay(
        name="high_weight_decay_sgd",
        setting=SGD,
        weight_decay=0.05,
        labels=("weight_collapse", "weight_decay_too_high"),
        symptoms=("update_ratio_high", "weight_jump", "loss_divergence", "loss_spike", "loss_plateau"),
    ),
    StateLost(name="adam_state_lost", labels=("optimizer_state_lost",), symptoms=("update_ratio_high",)),
    StateLost(
        name="muon_state_lost",
        setting=Setting(optimizer="muon"),
        labels=("optimizer_state_lost",),
        symptoms=("update_ratio_high",),
    ),
    ZeroGradForgotten(name="zero_grad_forgotten", labels=LEFTOVER, symptoms=("gradient_exploding",)),
    ZeroGradEveryOtherStep(
        name="zero_grad_every_other_step", labels=LEFTOVER, symptoms=("gradient_exploding",)
    ),
    ZeroGradForgotten(
        name="zero_grad_forgotten_from_start",
        setting=Setting(accumulation=2),
        onset=1,
        labels=LEFTOVER,
        symptoms=("gradient_exploding",),
    ),
    ZeroGradForgotten(
        name="zero_grad_forgotten_unseen_sgd",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0, shows_batch=False),
        labels=LEFTOVER,
        symptoms=("gradient_exploding", "loss_divergence", "loss_spike"),
    ),
    NotNormalised(
        name="accumulation_not_normalised",
        setting=Setting(accumulation=2),
        labels=RESCALED,
        symptoms=("gradient_exploding",),
    ),
    NotNormalised(
        name="sum_instead_of_mean", factor=512.0, labels=RESCALED, symptoms=("gradient_exploding",)
    ),
    WrongSign(
        name="loss_maximised",
        labels=("loss_divergence", "loss_spike"),
        symptoms=("gradient_exploding", "update_ratio_high"),
    ),
    SwappedBlocks(name="blocks_swapped", labels=JUMPED, symptoms=("loss_spike", "loss_divergence")),
    ReloadedWeights(
        name="weights_reloaded_from_nearby",
        saved_at=100,
        labels=JUMPED,
        symptoms=("loss_spike", "loss_divergence"),
    ),
    CorruptedRow(name="weight_row_corrupted", labels=JUMPED, symptoms=BLOWN_UP),
    ReloadedWeights(name="weights_reloaded", labels=JUMPED, symptoms=("loss_spike", "loss_divergence")),
    ReloadedWeights(
        name="weights_reloaded_muon",
        setting=Setting(optimizer="muon", shows_batch=False, shows_schedule=False),
        labels=JUMPED,
        symptoms=("loss_spike", "loss_divergence"),
    ),
]
