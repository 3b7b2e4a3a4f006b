"""Updates that do not happen, or not to every parameter."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training
from minigpt.lab.drill.watch import Watch
from minigpt.model.config import ModelConfig

STANDS_STILL = ("no_update", "step_not_called", "learning_rate_zero")


@dataclass(frozen=True, kw_only=True)
class StepNotCalled(Fault):
    """optimizer.step() is no longer reached."""

    def update(self, training: Training) -> bool:
        return not self.active(training)


@dataclass(frozen=True, kw_only=True)
class StepLeftOut(Fault):
    """optimizer.step() is left out on every `every`-th step."""

    every: int = 3

    def update(self, training: Training) -> bool:
        return not self.active(training) or training.step % self.every > 0


@dataclass(frozen=True, kw_only=True)
class MissingFromOptimizer(Fault):
    """The optimizers are built without the parameters whose name starts with `prefix`."""

    prefix: str

    def built(self, training: Training) -> None:
        named = training.model.named_parameters()
        left_out = {id(parameter) for name, parameter in named if name.startswith(self.prefix)}
        for optimizer in training.optimizers:
            for group in optimizer.param_groups:
                group["params"] = [one for one in group["params"] if id(one) not in left_out]


@dataclass(frozen=True, kw_only=True)
class ReplacedParameter(Fault):
    """A new embedding is put into the model (another vocabulary?) when the optimizer has the old one already."""

    def built(self, training: Training) -> None:
        old = training.model.embedding
        new = nn.Embedding(old.num_embeddings, old.embedding_dim)
        with torch.no_grad():
            new.weight.copy_(old.weight)
        training.model.embedding = new
        training.watch = Watch(training)


@dataclass(frozen=True, kw_only=True)
class FrozenBlock(Fault):
    """requires_grad of a block's parameters is switched off, and nobody meant it."""

    prefix: str = "blocks.1."

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            for name, parameter in training.model.named_parameters():
                if name.startswith(self.prefix):
                    parameter.requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class ScaledGradients(Fault):
    """The gradients of some parameters are multiplied: by 0 in a hook, by little in a deep chain."""

    prefix: str = "blocks.2."
    factor: float = 0.0

    def after_backward(self, training: Training) -> None:
        if self.active(training):
            torch._foreach_mul_(training.gradients((self.prefix,)), self.factor)


@dataclass(frozen=True, kw_only=True)
class DetachedResidual(Fault):
    """A stray detach() before a block: what lies below gets no gradient any more."""

    block: int = 2

    def before_step(self, training: Training) -> None:
        if training.step == self.onset:
            training.block(self.block).register_forward_pre_hook(
                lambda module, inputs: (inputs[0].detach(), *inputs[1:])
            )


@dataclass(frozen=True, kw_only=True)
class DeadUnits(Fault):
    """Most units of a block's feed-forward layer put out exactly 0 on every token."""

    fraction: float = 0.9
    block: int = 1

    def before_step(self, training: Training) -> None:
        if training.step != self.onset:
            return
        mlp = training.block(self.block).mlp
        alive = (torch.rand(mlp.gate.out_features, generator=training.chance) >= self.fraction).float()
        mlp.forward = lambda x_BTD: mlp.down(  # type: ignore[method-assign]
            F.silu(mlp.gate(x_BTD)) * mlp.up(x_BTD) * alive
        )


UNTIED = ModelConfig(num_layers=4, hidden_size=64, num_heads=4, context_length=64, tie_embeddings=False)
NO_GRADIENT = ("missing_gradient", "graph_detached", "frozen_by_accident")

FAULTS: list[Fault] = [
    StepNotCalled(
        name="step_not_called", labels=STANDS_STILL, symptoms=("update_ratio_low", "frozen_parameter")
    ),
    StepNotCalled(
        name="step_not_called_muon",
        setting=Setting(optimizer="muon", shows_schedule=False),
        labels=STANDS_STILL,
        symptoms=("update_ratio_low", "frozen_parameter"),
    ),
    StepLeftOut(name="every_third_step_left_out", labels=("no_update", "step_not_called")),
    MissingFromOptimizer(
        name="block_missing_from_optimizer",
        onset=1,
        prefix="blocks.1.",
        labels=("unoptimized_parameter", "missing_from_optimizer"),
        symptoms=("frozen_parameter",),
    ),
    MissingFromOptimizer(
        name="head_missing_from_optimizer",
        setting=Setting(model=UNTIED, optimizer="sgd", learning_rate=0.3, weight_decay=0.0),
        onset=1,
        prefix="head.",
        labels=("unoptimized_parameter", "missing_from_optimizer"),
        symptoms=("frozen_parameter",),
    ),
    ReplacedParameter(
        name="embedding_replaced",
        onset=1,
        labels=("unoptimized_parameter", "missing_from_optimizer", "frozen_parameter"),
        symptoms=("missing_gradient",),
    ),
    FrozenBlock(name="block_frozen", labels=(*NO_GRADIENT, "frozen_parameter"), symptoms=("dead_layer",)),
    FrozenBlock(
        name="one_matrix_frozen_sgd",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0),
        prefix="blocks.3.mlp.up",
        labels=(*NO_GRADIENT, "frozen_parameter"),
    ),
    ScaledGradients(
        name="block_gradient_zero",
        labels=("dead_layer", "layer_cut_off", "missing_gradient"),
        symptoms=("frozen_parameter",),
    ),
    ScaledGradients(
        name="block_gradient_faint",
        factor=1e-4,
        labels=("dead_layer", "layer_cut_off", "gradient_vanishing"),
    ),
    ScaledGradients(
        name="attention_gradient_zero_bf16",
        setting=Setting(precision="bf16"),
        prefix="blocks.0.attention.",
        labels=("dead_layer", "layer_cut_off", "missing_gradient"),
        symptoms=("frozen_parameter",),
    ),
    DetachedResidual(
        name="detached_residual", labels=NO_GRADIENT, symptoms=("dead_layer", "frozen_parameter")
    ),
    DetachedResidual(
        name="detached_residual_untied",
        setting=Setting(model=UNTIED),
        block=1,
        labels=NO_GRADIENT,
        symptoms=("dead_layer", "frozen_parameter"),
    ),
    ScaledGradients(
        name="block_gradient_faint_sgd",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0),
        factor=1e-3,
        labels=("dead_layer", "layer_cut_off", "gradient_vanishing"),
    ),
    DeadUnits(
        name="dead_units_three_in_five",
        fraction=0.6,
        labels=("dead_units", "units_dead"),
        symptoms=("dead_layer",),
    ),
    DeadUnits(name="dead_units", labels=("dead_units", "units_dead"), symptoms=("dead_layer",)),
]
