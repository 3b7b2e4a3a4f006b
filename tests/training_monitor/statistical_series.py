"""Series on which each of the statistical rules must speak: a run that learns, and what a fault makes of it."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

from minigpt.training_monitor.config import ClipSaturationConfig, MonitorConfig, ThroughputConfig
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

FACTS = RunFacts(warmup_steps=20, max_grad_norm=1.0, vocab_size=256, optimizer="adamw", adam_eps=1e-8)
CONFIG = MonitorConfig(
    clip_saturation=ClipSaturationConfig(window=100), throughput_drop=ThroughputConfig(interrupt_seconds=30)
)
PARAMETERS = ParameterFacts(
    names=("embedding.weight", "blocks.0.up.weight", "blocks.0.down.weight", "norm.weight"),
    groups=("embedding", "blocks.0", "blocks.0", "norm"),
    sizes=(16384, 16384, 16384, 64),
    trainable=(True,) * 4,
    optimized=(True,) * 4,
)
GROUPS = ("embedding", "blocks.0", "blocks.1", "norm")
Change = Callable[[StepSignals, int], StepSignals]
"""(a healthy step, steps since the onset from 1 on) -> what the fault makes of it."""
ONSET = 150


def healthy(steps: int, seed: int = 0) -> list[StepSignals]:
    """A run that learns, with every signal."""
    chance = random.Random(seed)
    series = []
    for step in range(1, steps + 1):
        lr = 1e-3 * min(1.0, step / 20)
        noise = chance.lognormvariate(0, 0.15)
        groups = {
            name: noise * chance.lognormvariate(0, 0.05)
            for name in ("embedding", "blocks.0", "blocks.1", "norm")
        }
        series.append(
            StepSignals(
                step,
                (2.5 + 3 * math.exp(-step / 60)) * chance.lognormvariate(0, 0.02),
                math.sqrt(sum(value * value for value in groups.values())),
                lr,
                group_norms=groups,
                weight_norms=dict.fromkeys(groups, 10.0),
                update_ratios=dict.fromkeys(groups, 8 * lr),
                tokens=512,
                seconds=2.0,
                tokens_per_second=256 * chance.lognormvariate(0, 0.05),
                memory_bytes=10**9,
                parameters=ParameterSignals(
                    PARAMETERS, [noise / 4] * 4, [10.0] * 4, [80 * lr * chance.lognormvariate(0, 0.1)] * 4
                ),
                look=looked() if step % 10 == 0 else None,
            )
        )
    return series


def looked(attention: float = 5.0, activation: float = 1.0, dead: float = 0.05, logits: float = 3.0) -> Look:
    return Look(
        activation_rms={"blocks.0": activation, "blocks.1": 1.5 * activation},
        attention_logit_max={"blocks.0": attention, "blocks.1": 2.0},
        dead_unit_fraction={"blocks.0": dead, "blocks.1": 0.0},
        output_logit_rms=logits,
        log_partition=logits,
    )


def spoilt(change: Change, steps: int = 420) -> list[StepSignals]:
    return [step if step.step <= ONSET else change(step, step.step - ONSET) for step in healthy(steps)]


def all_gradients(factor: Callable[[int], float]) -> Change:
    def change(step: StepSignals, since: int) -> StepSignals:
        times = factor(since)
        assert step.parameters is not None
        norms = [norm * times for norm in step.parameters.grad_norms if norm is not None]
        return replace(
            step,
            grad_norm=step.grad_norm * times,
            group_norms={name: norm * times for name, norm in step.group_norms.items()},
            parameters=replace(step.parameters, grad_norms=norms),
        )

    return change


def one_layer_explodes(step: StepSignals, since: int) -> StepSignals:
    groups = {**step.group_norms, "blocks.1": 100.0}
    return replace(step, grad_norm=100.0, group_norms=groups)


def updates(factor: float) -> Change:
    def change(step: StepSignals, since: int) -> StepSignals:
        assert step.parameters is not None
        assert step.parameters.update_norms is not None
        moved = [norm * factor for norm in step.parameters.update_norms]
        ratios = {name: ratio * factor for name, ratio in step.update_ratios.items()}
        return replace(step, update_ratios=ratios, parameters=replace(step.parameters, update_norms=moved))

    return change


def weights_shrink(step: StepSignals, since: int) -> StepSignals:
    assert step.parameters is not None
    weights = [10 * 0.96**since] * 4
    return replace(step, parameters=replace(step.parameters, weight_norms=weights))


def look_of(name: str, value: Callable[[int], float]) -> Change:
    def change(step: StepSignals, since: int) -> StepSignals:
        step = replace(step, loss=1.3 * step.loss)  # growth alone would not interrupt
        return step if step.look is None else replace(step, look=looked(**{name: value(since)}))

    return change


FIRES: dict[str, tuple[str, Change, int]] = {
    # finding -> (rule, fault, steps after the onset by which it is sustained)
    "gradient_exploding": ("gradient_exploding", one_layer_explodes, 10),
    "gradient_scale_shift": ("gradient_scale_shift", all_gradients(lambda since: 8.0), 15),
    "gradient_vanishing": ("gradient_vanishing", all_gradients(lambda since: 1e-7), 20),
    "loss_spike": ("loss_spike", lambda step, since: replace(step, loss=9.0), 10),
    "loss_divergence": (
        "loss_divergence",
        lambda step, since: replace(step, loss=step.loss * 1.01 ** min(since, 200)),
        60,
    ),
    "loss_collapse": ("loss_collapse", lambda step, since: replace(step, loss=0.01), 10),
    "update_ratio_high": ("update_ratio", updates(40.0), 5),
    "update_ratio_low": ("update_ratio", updates(1e-3), 20),
    "weight_collapse": ("weight_collapse", weights_shrink, 20),
    "attention_logit_growth": ("forward_growth", look_of("attention", lambda since: 5.0 * since), 60),
    "activation_growth": ("forward_growth", look_of("activation", lambda since: 1.0 * since), 40),
    "output_logit_growth": ("forward_growth", look_of("logits", lambda since: 2.0 * since), 40),
    "dead_units": ("forward_growth", look_of("dead", lambda since: 0.9), 30),
    "throughput_drop": (
        "throughput_drop",
        lambda step, since: replace(step, tokens_per_second=60.0, seconds=8.0),
        25,
    ),
    "memory_growth": (
        "memory_growth",
        lambda step, since: replace(step, memory_bytes=10**9 + 10**7 * since),
        140,
    ),
    "clip_saturation": ("clip_saturation", all_gradients(lambda since: 30.0), 170),
}
