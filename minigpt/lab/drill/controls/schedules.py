"""Learning rates and warm-ups that are unusual and meant."""

import math
from dataclasses import dataclass

from minigpt.lab.drill.scenario import Control
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training
from minigpt.model.config import ModelConfig
from minigpt.optim.config import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Restarts(Control):
    """Cosine with warm restarts: the rate jumps back up every `period` steps (arXiv 1608.03983)."""

    period: int = 200

    def planned_lr(self, training: Training, lr: float) -> float:
        peak, warmup = self.setting.learning_rate, self.setting.schedule.warmup_steps
        if training.step <= warmup:
            return peak * training.step / warmup
        progress = ((training.step - 1) % self.period) / self.period
        return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


POST_NORM = ModelConfig(num_layers=3, hidden_size=64, num_heads=4, context_length=64, norm_position="post")

CONTROLS: list[Control] = [
    Control(name="plain_in_a_new_process", setting=Setting(steps=300), alone=True),
    Control(name="plain", setting=Setting(steps=600), seeds=(0, 1, 2, 3)),
    Control(
        name="long_warmup",
        setting=Setting(steps=600, schedule=ScheduleConfig(kind="cosine", warmup_steps=300)),
    ),
    Control(
        name="no_warmup_moderate_lr",
        setting=Setting(
            steps=400, learning_rate=1e-3, schedule=ScheduleConfig(kind="cosine", warmup_steps=0)
        ),
    ),
    Restarts(name="lr_restarts", setting=Setting(steps=600)),
    Restarts(name="lr_restarts_unknown_schedule", setting=Setting(steps=600, shows_schedule=False)),
    Control(
        name="wsd_decay",
        setting=Setting(steps=500, schedule=ScheduleConfig(kind="wsd", warmup_steps=30, min_lr_ratio=0.0)),
    ),
    Control(
        name="linear_to_zero_unknown_schedule",
        setting=Setting(
            steps=500,
            schedule=ScheduleConfig(kind="linear", warmup_steps=30, min_lr_ratio=0.0),
            shows_schedule=False,
            shows_batch=False,
        ),
    ),
    Control(
        name="low_lr",
        setting=Setting(
            steps=400, learning_rate=5e-5, schedule=ScheduleConfig(kind="constant", warmup_steps=20)
        ),
    ),
    Control(name="high_lr", setting=Setting(steps=500, learning_rate=1.2e-2, max_grad_norm=0.5)),
    Control(
        name="post_norm_with_warmup",
        setting=Setting(
            model=POST_NORM,
            steps=400,
            learning_rate=2e-3,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=120),
        ),
    ),
]
