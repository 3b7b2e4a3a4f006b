"""Learning rates that are wrong: too high, too low, not what was planned."""

from dataclasses import dataclass

from minigpt.lab.drill.scenario import Fault
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.training import Training
from minigpt.model.config import ModelConfig
from minigpt.optim.config import ScheduleConfig

TOO_HIGH = (
    "update_ratio_high",
    "learning_rate_mismatch",
    "learning_rate_jump",
    "learning_rate_too_high",
    "learning_rate_off_schedule",
)
BLOWN_UP = ("loss_spike", "loss_divergence", "gradient_exploding", "nan_loss", "non_finite_gradient")
NO_WARMUP = ScheduleConfig(kind="constant", warmup_steps=0)


@dataclass(frozen=True, kw_only=True)
class WrongRate(Fault):
    """The optimizer gets `factor` times the planned rate."""

    factor: float

    def actual_lr(self, training: Training, lr: float) -> float:
        return lr * self.factor if self.active(training) else lr


@dataclass(frozen=True, kw_only=True)
class DoublingRate(Fault):
    """A sign error in a scheduler: the rate doubles every `period` steps."""

    period: int = 15

    def actual_lr(self, training: Training, lr: float) -> float:
        return lr * float(2.0 ** (max(0, training.step - self.onset) / self.period))


UNKNOWN_SCHEDULE = Setting(shows_schedule=False)
DEEP_POST_NORM = ModelConfig(
    num_layers=12, hidden_size=64, num_heads=4, context_length=64, norm_position="post"
)

FAULTS: list[Fault] = [
    WrongRate(
        name="lr_jump_brief", factor=100, lasting=False, steps_wrong=4, labels=TOO_HIGH, symptoms=BLOWN_UP
    ),
    WrongRate(name="lr_jump", factor=50, labels=TOO_HIGH, symptoms=BLOWN_UP),
    WrongRate(
        name="lr_jump_unknown_schedule",
        setting=UNKNOWN_SCHEDULE,
        factor=100,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    WrongRate(
        name="lr_jump_sgd",
        setting=Setting(optimizer="sgd", learning_rate=0.3, weight_decay=0.0, shows_schedule=False),
        factor=50,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    WrongRate(
        name="lr_jump_muon",
        setting=Setting(optimizer="muon", shows_schedule=False),
        factor=60,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    WrongRate(
        name="lr_jump_bf16",
        setting=Setting(precision="bf16", shows_batch=False, shows_schedule=False),
        factor=70,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    DoublingRate(
        name="lr_doubling_unknown_schedule",
        setting=UNKNOWN_SCHEDULE,
        slow=True,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    Fault(
        name="no_warmup_high_lr",
        setting=Setting(learning_rate=0.1, betas=(0.9, 0.999), schedule=NO_WARMUP, steps=200),
        healthy=Setting(steps=200),
        onset=1,
        labels=(*TOO_HIGH, "warmup_too_short"),
        symptoms=(*BLOWN_UP, "loss_plateau"),
    ),
    Fault(
        name="post_norm_deep_no_warmup",
        setting=Setting(
            model=DEEP_POST_NORM, learning_rate=1e-2, betas=(0.9, 0.999), schedule=NO_WARMUP, steps=200
        ),
        healthy=Setting(model=DEEP_POST_NORM, learning_rate=1e-3, steps=200),
        onset=1,
        slow=True,
        labels=(*TOO_HIGH, "warmup_too_short", "gradient_vanishing", "loss_plateau"),
        symptoms=(*BLOWN_UP, "dead_layer", "update_ratio_low"),
    ),
    WrongRate(
        name="lr_zero",
        factor=0.0,
        labels=("no_update", "learning_rate_mismatch", "learning_rate_zero", "learning_rate_off_schedule"),
        symptoms=("update_ratio_low", "frozen_parameter"),
    ),
    WrongRate(
        name="lr_zero_unknown_schedule",
        factor=0.0,
        setting=UNKNOWN_SCHEDULE,
        labels=("no_update", "learning_rate_zero"),
        symptoms=("update_ratio_low", "frozen_parameter"),
    ),
    WrongRate(
        name="lr_times_eight_unknown_schedule",
        setting=UNKNOWN_SCHEDULE,
        factor=8,
        labels=TOO_HIGH,
        symptoms=BLOWN_UP,
    ),
    WrongRate(
        name="lr_falls_unknown_schedule",
        setting=UNKNOWN_SCHEDULE,
        factor=0.01,
        labels=("learning_rate_mismatch", "learning_rate_zero"),
        symptoms=("update_ratio_low", "loss_plateau"),
    ),
    WrongRate(
        name="lr_a_third_of_plan",
        factor=1 / 3,
        labels=("learning_rate_mismatch", "learning_rate_off_schedule"),
        symptoms=("update_ratio_low",),
    ),
    WrongRate(
        name="lr_twice_the_plan",
        factor=2.0,
        onset=1,
        labels=("learning_rate_mismatch", "learning_rate_off_schedule"),
    ),
]
