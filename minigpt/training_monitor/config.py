"""The training monitor's configuration: the rules, each defined beside its detector, and the policy."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.clip_saturation import ClipSaturationConfig
from minigpt.training_monitor.detectors.dead_layer import DeadLayerConfig
from minigpt.training_monitor.detectors.degenerate_batch import DegenerateBatchConfig
from minigpt.training_monitor.detectors.forward_growth_config import ForwardGrowthConfig
from minigpt.training_monitor.detectors.frozen_parameter_config import FrozenParameterConfig
from minigpt.training_monitor.detectors.future_leak import FutureLeakConfig
from minigpt.training_monitor.detectors.gradient_scale_shift import ScaleShiftConfig
from minigpt.training_monitor.detectors.gradient_vanishing_config import VanishingConfig
from minigpt.training_monitor.detectors.initial_loss import InitialLossConfig
from minigpt.training_monitor.detectors.labels import LabelsConfig
from minigpt.training_monitor.detectors.learning_rate import LearningRateConfig
from minigpt.training_monitor.detectors.leftover_gradient import LeftoverGradientConfig
from minigpt.training_monitor.detectors.loss_collapse import LossCollapseConfig
from minigpt.training_monitor.detectors.loss_divergence_config import LossDivergenceConfig
from minigpt.training_monitor.detectors.loss_plateau import LossPlateauConfig
from minigpt.training_monitor.detectors.loss_spike import LossSpikeConfig
from minigpt.training_monitor.detectors.missing_gradient import MissingGradientConfig
from minigpt.training_monitor.detectors.optimizer_state import OptimizerStateConfig
from minigpt.training_monitor.detectors.repeated_batch import RepeatedBatchConfig
from minigpt.training_monitor.detectors.spike_config import ExplodingConfig
from minigpt.training_monitor.detectors.throughput import MemoryGrowthConfig, ThroughputConfig
from minigpt.training_monitor.detectors.unoptimized_parameter import UnoptimizedParameterConfig
from minigpt.training_monitor.detectors.update_ratio_config import UpdateRatioConfig
from minigpt.training_monitor.detectors.weight_collapse import WeightCollapseConfig
from minigpt.training_monitor.detectors.weight_jump import WeightJumpConfig
from minigpt.training_monitor.overflow import Fp16Config, NonFiniteConfig
from minigpt.training_monitor.policy import PolicyConfig
from minigpt.training_monitor.sinks.wandb import WandbConfig

__all__ = [
    "ClipSaturationConfig",
    "DeadLayerConfig",
    "DegenerateBatchConfig",
    "ExplodingConfig",
    "ForwardGrowthConfig",
    "Fp16Config",
    "FrozenParameterConfig",
    "FutureLeakConfig",
    "InitialLossConfig",
    "LabelsConfig",
    "LearningRateConfig",
    "LeftoverGradientConfig",
    "LossCollapseConfig",
    "LossDivergenceConfig",
    "LossPlateauConfig",
    "LossSpikeConfig",
    "MemoryGrowthConfig",
    "MissingGradientConfig",
    "MonitorConfig",
    "NonFiniteConfig",
    "OptimizerStateConfig",
    "PolicyConfig",
    "RepeatedBatchConfig",
    "ScaleShiftConfig",
    "ThroughputConfig",
    "UnoptimizedParameterConfig",
    "UpdateRatioConfig",
    "VanishingConfig",
    "WandbConfig",
    "WeightCollapseConfig",
    "WeightJumpConfig",
]


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """The training monitor: its language, its rules and its policy."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether the run is watched at all."""
    language: Literal["en", "zh"] = "en"
    """Language of the diagnoses."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What is done about findings."""
    look_every_steps: int | None = 50
    """Steps between closer looks at the forward pass of one sequence (activations, attention logits, dead units);
    null or 0: never."""
    look_every_steps_on_suspicion: int | None = 10
    """The same while a finding is young and open: what it is shows sooner; null or 0: no sooner."""
    check_causality: bool = True
    """Whether one sequence of a causal language model is run again with another last token, at the first steps and
    when the loss has fallen much, to see that nothing before it moves (future_leak)."""
    rerun_micro_batches: int | None = 8
    """In somebody else's loop: so many of a step's last micro-batches are kept until it is judged, to be done again at
    the first NaN, to see which module made it (MiniGPT's own can do any step again); null or 0: never."""
    rerun_most_mib: int = 256
    """At most so much of what the model was called with is kept."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases as a further place for the curves."""
    non_finite: NonFiniteConfig = field(default_factory=NonFiniteConfig)
    """nan_loss and non_finite_gradient."""
    fp16: Fp16Config = field(default_factory=Fp16Config)
    """overflow_streak, scale_collapse and gradient_underflow."""
    missing_gradient: MissingGradientConfig = field(default_factory=MissingGradientConfig)
    """missing_gradient."""
    dead_layer: DeadLayerConfig = field(default_factory=DeadLayerConfig)
    """dead_layer."""
    unoptimized_parameter: UnoptimizedParameterConfig = field(default_factory=UnoptimizedParameterConfig)
    """unoptimized_parameter."""
    frozen_parameter: FrozenParameterConfig = field(default_factory=FrozenParameterConfig)
    """frozen_parameter and no_update."""
    learning_rate_mismatch: LearningRateConfig = field(default_factory=LearningRateConfig)
    """learning_rate_mismatch."""
    leftover_gradient: LeftoverGradientConfig = field(default_factory=LeftoverGradientConfig)
    """leftover_gradient."""
    optimizer_state_lost: OptimizerStateConfig = field(default_factory=OptimizerStateConfig)
    """optimizer_state_lost."""
    weight_jump: WeightJumpConfig = field(default_factory=WeightJumpConfig)
    """weight_jump."""
    initial_loss: InitialLossConfig = field(default_factory=InitialLossConfig)
    """initial_loss."""
    repeated_batch: RepeatedBatchConfig = field(default_factory=RepeatedBatchConfig)
    """repeated_batch."""
    degenerate_batch: DegenerateBatchConfig = field(default_factory=DegenerateBatchConfig)
    """degenerate_batch."""
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    """label_mismatch and label_leak."""
    future_leak: FutureLeakConfig = field(default_factory=FutureLeakConfig)
    """future_leak."""
    gradient_vanishing: VanishingConfig = field(default_factory=VanishingConfig)
    """gradient_vanishing."""
    gradient_exploding: ExplodingConfig = field(default_factory=ExplodingConfig)
    """gradient_exploding."""
    loss_spike: LossSpikeConfig = field(default_factory=LossSpikeConfig)
    """loss_spike."""
    loss_divergence: LossDivergenceConfig = field(default_factory=LossDivergenceConfig)
    """loss_divergence."""
    loss_plateau: LossPlateauConfig = field(default_factory=LossPlateauConfig)
    """loss_plateau."""
    loss_collapse: LossCollapseConfig = field(default_factory=LossCollapseConfig)
    """loss_collapse."""
    gradient_scale_shift: ScaleShiftConfig = field(default_factory=ScaleShiftConfig)
    """gradient_scale_shift."""
    clip_saturation: ClipSaturationConfig = field(default_factory=ClipSaturationConfig)
    """clip_saturation."""
    update_ratio: UpdateRatioConfig = field(default_factory=UpdateRatioConfig)
    """update_ratio_high and update_ratio_low."""
    weight_collapse: WeightCollapseConfig = field(default_factory=WeightCollapseConfig)
    """weight_collapse."""
    forward_growth: ForwardGrowthConfig = field(default_factory=ForwardGrowthConfig)
    """attention_logit_growth, activation_growth, output_logit_growth and dead_units."""
    throughput_drop: ThroughputConfig = field(default_factory=ThroughputConfig)
    """throughput_drop."""
    memory_growth: MemoryGrowthConfig = field(default_factory=MemoryGrowthConfig)
    """memory_growth."""

    def __post_init__(self) -> None:
        require(self.language in ("en", "zh"), "monitor.language", self.language, "en or zh")
        every = self.look_every_steps
        require(every is None or every >= 0, "monitor.look_every_steps", every, ">= 0, or null")
        sooner = self.look_every_steps_on_suspicion
        require(
            sooner is None or sooner >= 0, "monitor.look_every_steps_on_suspicion", sooner, ">= 0, or null"
        )
        kept = self.rerun_micro_batches
        require(kept is None or kept >= 0, "monitor.rerun_micro_batches", kept, ">= 0, or null")
        require(self.rerun_most_mib >= 0, "monitor.rerun_most_mib", self.rerun_most_mib, ">= 0")
