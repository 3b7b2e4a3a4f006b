"""The small drill that runs in seconds: a dozen faults of every kind and four controls, in short trainings."""

from dataclasses import replace

from minigpt.lab.drill.catalogue import CONTROLS, FAULTS
from minigpt.lab.drill.scenario import Fault, Scenario
from minigpt.model.config import ModelConfig

REDUCED = (
    "lr_jump",
    "step_not_called",
    "block_missing_from_optimizer",
    "block_frozen",
    "block_gradient_zero",
    "init_too_large",
    "nan_loss_once",
    "weight_row_corrupted",
    "labels_shuffled",
    "same_batch",
    "zero_grad_forgotten",
    "adam_state_lost",
    "gradients_fade",
)
REDUCED_CONTROLS = ("plain", "dip_at_step_14", "resumed", "sgd_momentum")
SMALL = ModelConfig(num_layers=3, hidden_size=32, num_heads=2, context_length=32)
FAULT_STEPS, CONTROL_STEPS = 150, 220


def reduced_scenarios() -> list[Scenario]:
    """One seed of each, on a smaller model; the faults begin earlier."""
    return [
        *(_smaller(fault) for fault in FAULTS if fault.name in REDUCED),
        *(_smaller(control) for control in CONTROLS if control.name in REDUCED_CONTROLS),
    ]


def _smaller(scenario: Scenario) -> Scenario:
    steps = FAULT_STEPS if isinstance(scenario, Fault) else CONTROL_STEPS
    setting = replace(scenario.setting, model=SMALL, steps=steps)
    name = f"reduced-{scenario.name}"
    if isinstance(scenario, Fault):
        return replace(scenario, name=name, setting=setting, seeds=(0,), onset=min(scenario.onset, 70))
    return replace(scenario, name=name, setting=setting, seeds=(0,))
