"""First weights that are far too small or too large."""

from dataclasses import dataclass

import torch

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training


@dataclass(frozen=True, kw_only=True)
class ScaledWeights(Fault):
    """All matrices start `factor` times as large as they should."""

    factor: float

    def before_build(self, training: Training) -> None:
        with torch.no_grad():
            for parameter in training.model.parameters():
                if parameter.ndim >= 2:
                    parameter.mul_(self.factor)


FAULTS: list[Fault] = [
    ScaledWeights(
        name="init_too_large",
        factor=40,
        onset=1,
        labels=(
            "initial_loss",
            "bad_initialization",
            "output_logit_growth",
            "attention_logit_growth",
            "activation_growth",
        ),
        symptoms=("loss_plateau", "gradient_exploding", "update_ratio_low"),
    ),
    ScaledWeights(
        name="init_large",
        factor=15,
        onset=1,
        setting=Setting(shows_batch=False),
        labels=("initial_loss", "bad_initialization", "output_logit_growth", "attention_logit_growth"),
        symptoms=("loss_plateau", "gradient_exploding", "update_ratio_low"),
    ),
    ScaledWeights(
        name="init_too_small",
        factor=1e-3,
        onset=1,
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0),
        slow=True,
        labels=(
            "gradient_vanishing",
            "loss_plateau",
            "dead_layer",
            "bad_initialization",
            "initial_loss",
            "initialized_too_small",
            "update_ratio_high",
        ),
        symptoms=("update_ratio_low", "gradient_exploding"),
    ),
]
