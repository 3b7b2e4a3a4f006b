"""All rules by the name of their configuration: a new detector is its own file and one entry here."""

from collections.abc import Callable
from typing import NamedTuple

from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.clip_saturation import ClipSaturation
from minigpt.training_monitor.detectors.dead_layer import DeadLayer
from minigpt.training_monitor.detectors.degenerate_batch import DegenerateBatch
from minigpt.training_monitor.detectors.detector import Detector
from minigpt.training_monitor.detectors.forward_growth import ForwardGrowth
from minigpt.training_monitor.detectors.fp16 import Fp16
from minigpt.training_monitor.detectors.frozen_parameter import FrozenParameter
from minigpt.training_monitor.detectors.future_leak import FutureLeak
from minigpt.training_monitor.detectors.gradient_exploding import GradientExploding
from minigpt.training_monitor.detectors.gradient_scale_shift import GradientScaleShift
from minigpt.training_monitor.detectors.gradient_vanishing import GradientVanishing
from minigpt.training_monitor.detectors.initial_loss import InitialLoss
from minigpt.training_monitor.detectors.labels import Labels
from minigpt.training_monitor.detectors.learning_rate import LearningRateMismatch
from minigpt.training_monitor.detectors.leftover_gradient import LeftoverGradient
from minigpt.training_monitor.detectors.loss_collapse import LossCollapse
from minigpt.training_monitor.detectors.loss_divergence import LossDivergence
from minigpt.training_monitor.detectors.loss_plateau import LossPlateau
from minigpt.training_monitor.detectors.loss_spike import LossSpike
from minigpt.training_monitor.detectors.missing_gradient import MissingGradient
from minigpt.training_monitor.detectors.non_finite import NonFinite
from minigpt.training_monitor.detectors.optimizer_state import OptimizerStateLost
from minigpt.training_monitor.detectors.repeated_batch import RepeatedBatch
from minigpt.training_monitor.detectors.throughput import MemoryGrowth, ThroughputDrop
from minigpt.training_monitor.detectors.unoptimized_parameter import UnoptimizedParameter
from minigpt.training_monitor.detectors.update_ratio import UpdateRatio
from minigpt.training_monitor.detectors.weight_collapse import WeightCollapse
from minigpt.training_monitor.detectors.weight_jump import WeightJump
from minigpt.training_monitor.run_facts import RunFacts


class Rule(NamedTuple):
    """A detector, what it may say, and the signals without which it can say nothing."""

    build: Callable[[MonitorConfig, RunFacts], Detector]
    findings: tuple[str, ...]
    needs: tuple[str, ...]
    """Fields of StepSignals."""


RULES: dict[str, Rule] = {
    "non_finite": Rule(
        lambda config, facts: NonFinite(config.non_finite), ("nan_loss", "non_finite_gradient"), ("loss",)
    ),
    "fp16": Rule(
        lambda config, facts: Fp16(config.fp16, facts.precision),
        ("overflow_streak", "scale_collapse", "gradient_underflow"),
        ("scaler_scale", "parameters"),
    ),
    "missing_gradient": Rule(
        lambda config, facts: MissingGradient(config.missing_gradient),
        ("missing_gradient",),
        ("group_norms",),
    ),
    "dead_layer": Rule(
        lambda config, facts: DeadLayer(config.dead_layer, facts.warmup_steps),
        ("dead_layer",),
        ("group_norms",),
    ),
    "unoptimized_parameter": Rule(
        lambda config, facts: UnoptimizedParameter(config.unoptimized_parameter),
        ("unoptimized_parameter",),
        ("parameters",),
    ),
    "frozen_parameter": Rule(
        lambda config, facts: FrozenParameter(config.frozen_parameter, facts.optimizer),
        ("frozen_parameter", "no_update"),
        ("update_ratios",),
    ),
    "learning_rate_mismatch": Rule(
        lambda config, facts: LearningRateMismatch(config.learning_rate_mismatch),
        ("learning_rate_mismatch",),
        ("scheduled_lr",),
    ),
    "leftover_gradient": Rule(
        lambda config, facts: LeftoverGradient(config.leftover_gradient),
        ("leftover_gradient",),
        ("leftover_grad_norm",),
    ),
    "optimizer_state_lost": Rule(
        lambda config, facts: OptimizerStateLost(config.optimizer_state_lost),
        ("optimizer_state_lost",),
        ("optimizer_steps",),
    ),
    "weight_jump": Rule(
        lambda config, facts: WeightJump(config.weight_jump),
        ("weight_jump",),
        ("weight_norms", "update_ratios"),
    ),
    "initial_loss": Rule(
        lambda config, facts: InitialLoss(config.initial_loss, facts.vocab_size, facts.resumed),
        ("initial_loss",),
        ("loss",),
    ),
    "repeated_batch": Rule(
        lambda config, facts: RepeatedBatch(config.repeated_batch), ("repeated_batch",), ("batch",)
    ),
    "degenerate_batch": Rule(
        lambda config, facts: DegenerateBatch(config.degenerate_batch), ("degenerate_batch",), ("batch",)
    ),
    "labels": Rule(
        lambda config, facts: Labels(config.labels, facts.vocab_size, facts.resumed),
        ("label_mismatch", "label_leak"),
        ("batch",),
    ),
    "future_leak": Rule(
        lambda config, facts: FutureLeak(config.future_leak), ("future_leak",), ("future_influence",)
    ),
    "gradient_vanishing": Rule(
        lambda config, facts: GradientVanishing(
            config.gradient_vanishing, facts.warmup_steps, facts.adam_eps
        ),
        ("gradient_vanishing",),
        ("grad_norm",),
    ),
    "gradient_exploding": Rule(
        lambda config, facts: GradientExploding(config.gradient_exploding, facts),
        ("gradient_exploding",),
        ("grad_norm",),
    ),
    "loss_spike": Rule(lambda config, facts: LossSpike(config.loss_spike, facts), ("loss_spike",), ("loss",)),
    "loss_divergence": Rule(
        lambda config, facts: LossDivergence(config.loss_divergence, facts), ("loss_divergence",), ("loss",)
    ),
    "loss_plateau": Rule(
        lambda config, facts: LossPlateau(config.loss_plateau, facts), ("loss_plateau",), ("loss",)
    ),
    "loss_collapse": Rule(
        lambda config, facts: LossCollapse(config.loss_collapse, facts), ("loss_collapse",), ("loss",)
    ),
    "gradient_scale_shift": Rule(
        lambda config, facts: GradientScaleShift(config.gradient_scale_shift),
        ("gradient_scale_shift",),
        ("group_norms", "loss"),
    ),
    "clip_saturation": Rule(
        lambda config, facts: ClipSaturation(config.clip_saturation, facts),
        ("clip_saturation",),
        ("grad_norm",),
    ),
    "update_ratio": Rule(
        lambda config, facts: UpdateRatio(config.update_ratio, facts),
        ("update_ratio_high", "update_ratio_low"),
        ("update_ratios",),
    ),
    "weight_collapse": Rule(
        lambda config, facts: WeightCollapse(config.weight_collapse, facts),
        ("weight_collapse",),
        ("weight_norms",),
    ),
    "forward_growth": Rule(
        lambda config, facts: ForwardGrowth(config.forward_growth, facts),
        ("attention_logit_growth", "activation_growth", "output_logit_growth", "dead_units"),
        ("look",),
    ),
    "throughput_drop": Rule(
        lambda config, facts: ThroughputDrop(config.throughput_drop),
        ("throughput_drop",),
        ("tokens_per_second",),
    ),
    "memory_growth": Rule(
        lambda config, facts: MemoryGrowth(config.memory_growth), ("memory_growth",), ("memory_bytes",)
    ),
}


def build_detectors(config: MonitorConfig, facts: RunFacts) -> dict[str, Detector]:
    """Every detector whose rule is enabled."""
    return {name: rule.build(config, facts) for name, rule in RULES.items() if getattr(config, name).enabled}
