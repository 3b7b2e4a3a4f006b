"""What grows or fades until it breaks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class GrowingWeights(Fault):
    """Every update also multiplies some weights by `rate`."""

    parts: tuple[str, ...]
    rate: float = 1.03

    def after_update(self, training: Training) -> None:
        if self.active(training):
            with torch.no_grad():
                for name, parameter in training.model.named_parameters():
                    if any(part in name for part in self.parts):
                        parameter.mul_(self.rate)


@dataclass(frozen=True, kw_only=True)
class HotParameters(Fault):
    """Some parameters train at `factor` times the learning rate of the others."""

    parts: tuple[str, ...]
    factor: float = 30.0

    def before_step(self, training: Training) -> None:
        if training.step != self.onset:
            return
        optimizer = training.optimizers[-1]
        named = training.model.named_parameters()
        hot = {id(parameter) for name, parameter in named if any(part in name for part in self.parts)}
        group = optimizer.param_groups[0]
        moved = [parameter for parameter in group["params"] if id(parameter) in hot]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in hot]
        optimizer.add_param_group({**group, "params": moved, "lr_ratio": self.factor})


@dataclass(frozen=True, kw_only=True)
class GradientBurst(Fault):
    """The gradients of one block are `factor` times themselves."""

    prefix: str = "blocks.2."
    factor: float = 1e4

    def after_backward(self, training: Training) -> None:
        if self.active(training):
            torch._foreach_mul_(training.gradients((self.prefix,)), self.factor)


@dataclass(frozen=True, kw_only=True)
class FadingGradients(Fault):
    """All gradients shrink by `rate` a step."""

    rate: float = 0.9

    def objective(self, training: Training, loss: Tensor) -> Tensor:
        return loss * self.rate ** max(0, training.step - self.onset)


@dataclass(frozen=True, kw_only=True)
class SmotheredLoss(Fault):
    """The scale in front of the head shrinks by `rate` a step, loss and gradients with it."""

    rate: float = 0.93

    def after_update(self, training: Training) -> None:
        if self.active(training):
            with torch.no_grad():
                training.model.norm.weight.mul_(self.rate)  # type: ignore[operator]


SGD = Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0)
FADING = ("gradient_vanishing", "backward_fades")

FAULTS: list[Fault] = [
    GrowingWeights(
        name="attention_logits_grow",
        setting=Setting(steps=280),
        parts=("query", "key"),
        slow=True,
        labels=("attention_logit_growth", "attention_logits_grow", "weight_jump"),
        symptoms=("update_ratio_high", "gradient_exploding", "loss_divergence", "loss_spike"),
    ),
    HotParameters(
        name="query_key_rate_too_high",
        setting=Setting(steps=280),
        parts=("query", "key"),
        slow=True,
        labels=(
            "attention_logit_growth",
            "attention_logits_grow",
            "update_ratio_high",
            "learning_rate_too_high",
        ),
        symptoms=("gradient_exploding", "loss_divergence", "loss_spike"),
    ),
    GrowingWeights(
        name="embedding_blows_up",
        parts=("embedding",),
        rate=1.05,
        slow=True,
        labels=(
            "output_logit_growth",
            "activation_growth",
            "output_logits_grow",
            "activations_grow",
            "weight_jump",
        ),
        symptoms=("update_ratio_high", "gradient_exploding", "loss_divergence", "loss_spike"),
    ),
    HotParameters(
        name="embedding_rate_too_high",
        parts=("embedding",),
        factor=100.0,
        labels=(
            "output_logit_growth",
            "activation_growth",
            "output_logits_grow",
            "activations_grow",
            "update_ratio_high",
            "learning_rate_too_high",
        ),
        symptoms=("gradient_exploding", "loss_divergence", "loss_spike"),
    ),
    GradientBurst(
        name="block_gradient_burst",
        lasting=False,
        steps_wrong=1,
        labels=("gradient_exploding", "one_layer_explodes"),
    ),
    GradientBurst(
        name="gradient_burst_lasting",
        prefix="blocks.",
        factor=60.0,
        setting=Setting(shows_batch=False),
        labels=("gradient_exploding", "gradient_scale_shift", "one_layer_explodes"),
    ),
    FadingGradients(
        name="gradients_fade",
        slow=True,
        labels=(*FADING, "gradient_scale_shift", "gradients_rescaled"),
        symptoms=("dead_layer", "update_ratio_low", "loss_plateau"),
    ),
    FadingGradients(
        name="gradients_fade_sgd",
        setting=SGD,
        slow=True,
        labels=(*FADING, "gradient_scale_shift"),
        symptoms=("dead_layer", "update_ratio_low", "loss_plateau"),
    ),
    FadingGradients(
        name="gradients_fade_early",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0, shows_batch=False),
        rate=0.95,
        onset=30,
        slow=True,
        labels=(*FADING, "gradient_scale_shift"),
        symptoms=("dead_layer", "update_ratio_low", "loss_plateau"),
    ),
    SmotheredLoss(
        name="output_fades",
        slow=True,
        labels=("weight_jump", "weights_changed_outside", "loss_divergence", *FADING),
        symptoms=("loss_plateau", "loss_spike", "update_ratio_high"),
    ),
]
