"""The likely causes of an incident, ranked by what speaks for them, and what speaks against the others."""

from collections.abc import Callable

from minigpt.training_monitor.circumstances import Cause, Circumstances, Explanation, Reason
from minigpt.training_monitor.rate_causes import causes_of_rate, causes_of_stillness, same_data

GROWTH = frozenset(("attention_logit_growth", "activation_growth", "output_logit_growth", "dead_units"))
GROWS_AFTER = 16
"""Steps after an incident's first sign from which growth is its consequence, not its cause."""
LATE = 0.3
"""What is left of the weight of a finding that only follows from another."""
NAMED_BY: dict[str, tuple[str, float]] = {
    # An exact finding is its own explanation: finding -> (cause, weight).
    "unoptimized_parameter": ("missing_from_optimizer", 10),
    "learning_rate_mismatch": ("learning_rate_off_schedule", 9),
    "leftover_gradient": ("zero_grad_forgotten", 10),
    "optimizer_state_lost": ("optimizer_state_lost", 10),
    "weight_jump": ("weights_changed_outside", 9),
    "weight_collapse": ("weight_decay_too_high", 8),
    "overflow_streak": ("fp16_overflow", 8),
    "scale_collapse": ("fp16_overflow", 8.5),
    "label_mismatch": ("labels_shuffled", 9),
    "label_leak": ("label_leak", 9),
    "future_leak": ("sees_the_future", 10),
    "repeated_batch": ("batch_repeats", 9),
    "degenerate_batch": ("degenerate_data", 9),
    "dead_layer": ("layer_cut_off", 8),
    "dead_units": ("units_dead", 4),
    "attention_logit_growth": ("attention_logits_grow", 4),
    "activation_growth": ("activations_grow", 3.5),
    "output_logit_growth": ("output_logits_grow", 3),
    # Never an explanation of what happens to the training itself.
    "throughput_drop": ("machine_slower", 0.5),
    "memory_growth": ("memory_leak", 0.5),
    "gradient_scale_shift": ("gradients_rescaled", 7),
    "initial_loss": ("bad_initialization", 8),
}


DATA_CAUSES = {"labels_shuffled", "label_leak", "batch_repeats", "degenerate_data"}


def explain(case: Circumstances) -> Explanation:
    """The causes that have anything for them (never none), and what is ruled out."""
    found = {} if case.told is None else {case.told.name: case.told}
    for judge in (_named, *JUDGES):
        for cause in judge(case):
            if cause.name not in found or found[cause.name].weight < cause.weight:
                found[cause.name] = cause
    ranked = sorted(found.values(), key=lambda cause: -cause.weight)
    return Explanation(tuple(ranked), _ruled_out(case, {cause.name for cause in ranked}))


def _named(case: Circumstances) -> list[Cause]:
    names = set(case.findings)
    if case.evidence("learning_rate_mismatch", "scheduled_lr") is None:
        names.discard("learning_rate_mismatch")  # no schedule known: only a jump, see _learning_rate
    if case.evidence("initial_loss", "trigger") in ("large", "weights"):
        names.discard("initial_loss")  # see _own_trigger
    late = case.consequences | {
        name for name in names & GROWTH if case.findings[name].opened_at > case.opened_at + GROWS_AFTER
    }
    return [
        Cause(cause, weight * (LATE if name in late else 1.0))
        for name in case.findings
        if name in names and name in NAMED_BY
        for cause, weight in [NAMED_BY[name]]
    ]


def _own_trigger(case: Circumstances) -> list[Cause]:
    """Findings that more than one cause can trigger, and that say which."""
    causes: list[Cause] = []
    if case.evidence("initial_loss", "weight_rms") is not None:
        causes.append(Cause("initialized_too_small", 8.5))
    if case.evidence("initial_loss", "trigger") == "uneven":
        ratio = float(case.evidence("initial_loss", "ratio") or 0.0)
        causes.append(Cause("bad_initialization" if ratio > 1 else "initialized_too_small", 8.5))
    if case.evidence("initial_loss", "trigger") == "large":
        causes.append(Cause("initialized_too_large", 8.5))
    if case.any_of("gradient_scale_shift") and _carry_the_scale(case):
        causes.append(Cause("gradients_still_scaled", 9))
    if case.evidence("overflow_streak", "trigger") == "at one scale":
        causes.append(Cause("scaler_stuck", 8.6))
    if case.any_of("gradient_underflow"):
        scaled = case.evidence("gradient_underflow", "scaler_scale") is not None
        half = case.facts.precision == "fp16" or (scaled and case.facts.precision is None)
        causes.append(Cause("fp16_underflow", 9) if half else Cause("units_dead", 4.5))
    return causes


def _carry_the_scale(case: Circumstances) -> bool:
    """Whether the gradients are larger by the very factor of the GradScaler."""
    scale = case.latest.get("scaler_scale") or case.evidence("gradient_scale_shift", "scaler_scale")
    ratio = case.evidence("gradient_scale_shift", "ratio")
    return bool(scale and ratio) and 0.5 < float(ratio or 0.0) / float(scale or 1.0) < 2.0


def _graph(case: Circumstances) -> list[Cause]:
    """Parameters that get no gradient, or get one and do not move."""
    causes: list[Cause] = []
    if case.any_of("missing_gradient"):
        frozen = case.evidence("missing_gradient", "trainable") is False
        causes.append(Cause("frozen_by_accident" if frozen else "graph_detached", 10))
    if case.any_of("frozen_parameter"):
        updates = case.moved.get("update_ratio")
        shrunk = updates is not None and updates.ratio < 0.1
        causes.append(Cause("optimizer_state_stale" if shrunk else "update_too_small_for_precision", 8))
    if case.any_of("no_update"):
        lr = case.evidence("no_update", "lr")
        causes.append(Cause("learning_rate_zero" if lr == 0 else "step_not_called", 9))
    return causes


def _numbers(case: Circumstances) -> list[Cause]:
    """NaN and infinity: where they arose says why."""
    if not case.any_of("nan_loss", "non_finite_gradient"):
        return []
    name = "nan_loss" if case.any_of("nan_loss") else "non_finite_gradient"
    phase = case.evidence(name, "phase")
    causes: list[Cause] = []
    if phase == "weights" or case.evidence(name, "trigger") == "weights":
        causes.append(Cause("weights_not_finite", 8.7))
    if phase == "input":
        causes.append(Cause("input_not_finite", 8.7))
    if phase == "loss" or case.evidence(name, "rerun") == "after_model":
        causes.append(Cause("loss_not_finite", 6))
    if case.facts.precision == "fp16":
        causes.append(Cause("fp16_overflow", 5))
    if name == "nan_loss":
        causes.append(Cause("forward_overflow", 4))
    else:
        causes.append(Cause("backward_overflow", 4))
    return causes


def _data(case: Circumstances) -> list[Cause]:
    """What the data can explain: one bad batch, or a change of their kind."""
    if not case.any_of("loss_spike", "gradient_exploding", "loss_divergence", "loss_collapse"):
        return []
    causes: list[Cause] = []
    short = all(finding.length <= 3 and finding.status != "sustained" for finding in case.findings.values())
    quiet_rate = case.lr_jump is None and not case.any_of("update_ratio_high")
    if short and quiet_rate:
        causes.append(Cause("bad_batch", 3.2))
    elif quiet_rate and "loss" in case.moved and case.moved["loss"].rose:
        causes.append(Cause("data_shift", 1.4 if same_data(case) else 2.4))
    if case.any_of("loss_collapse"):
        causes.append(Cause("label_leak", 3.0))
        if "distinct_tokens" not in case.latest:  # the batches were not seen
            causes.append(Cause("batch_repeats", 2.8))
    group_alone = case.evidence("gradient_exploding", "group")
    if group_alone is not None and not case.any_of("loss_spike", "loss_divergence"):
        causes.append(Cause("one_layer_explodes", 3.3, (("because.group", {"group": str(group_alone)}),)))
    return causes


def _norms(case: Circumstances) -> list[Cause]:
    """Gradients that grow and nothing else known."""
    if case.any_of("gradient_exploding"):
        return [Cause("updates_too_large", 1.5)]
    if case.any_of("clip_saturation"):
        return [Cause("clip_too_low", 1.5)]
    return [] if case.findings and set(case.findings) - {"loss_spike"} else [Cause("unusual_batch", 1.0)]


JUDGES: tuple[Callable[[Circumstances], list[Cause]], ...] = (
    _own_trigger,
    _graph,
    causes_of_rate,
    causes_of_stillness,
    _numbers,
    _data,
    _norms,
)


def _ruled_out(case: Circumstances, found: set[str]) -> tuple[Reason, ...]:
    """Usual suspects that the record clears."""
    ruled: list[Reason] = []
    rate_suspects = {"learning_rate_jump", "learning_rate_off_schedule", "learning_rate_zero"}
    if "lr" in case.steady and not found & rate_suspects and not case.any_of("learning_rate_mismatch"):
        ruled.append(("cleared.lr", {}))
    if {"distinct_tokens", "label_match"} <= case.steady and not found & DATA_CAUSES:
        ruled.append(("cleared.data", {}))
    if case.facts.precision in ("off", "bf16") and case.any_of("nan_loss", "gradient_vanishing"):
        ruled.append(("cleared.fp16", {"precision": {"off": "fp32"}.get(case.facts.precision, "bf16")}))
    return tuple(ruled)
