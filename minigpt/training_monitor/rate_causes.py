"""What the learning rate and the size of the updates explain: of trouble, and of standing still."""

from minigpt.training_monitor.circumstances import Cause, Circumstances, Reason, Values
from minigpt.training_monitor.usual import SWAMPED, TINY_UPDATE_RATIO, USUAL_EPS

WILD_UPDATE_RATIO = 0.3
"""||update|| / ||weights|| that no healthy training shows: NaN after it needs no other cause."""
UPDATES_AS_EVER = 2.0
"""What speaks against a warm-up too short where the updates had not grown when the trouble began."""


def causes_of_rate(case: Circumstances) -> list[Cause]:
    """A rate that jumped, or one too high for where the model is."""
    symptoms = (
        "update_ratio_high",
        "loss_divergence",
        "loss_spike",
        "gradient_exploding",
        "nan_loss",
        "non_finite_gradient",
        "attention_logit_growth",
        "activation_growth",
        "weight_collapse",
        "learning_rate_mismatch",
    )
    if not case.any_of(*symptoms):
        return []
    jump = case.lr_jump
    if jump is not None and jump.rose:
        values: Values = {
            "before": jump.before,
            "after": jump.after,
            "ratio": jump.ratio,
            "since": jump.since,
        }
        return [Cause("learning_rate_jump", 8.8, (("because.lr_jump", values),))]
    fell = jump is not None and case.evidence("learning_rate_mismatch", "normal") is not None
    if jump is not None and fell:  # no schedule is known, and the rate leapt down
        values = {"before": jump.before, "after": jump.after, "since": jump.since}
        return [Cause("learning_rate_zero", 8.8, (("because.lr_fell", values),))]
    return _without_a_jump(case)


def _without_a_jump(case: Circumstances) -> list[Cause]:
    """The rate is what it was: too high all the same, or it is the updates that changed."""
    ratio = case.latest.get("update_ratio", 0.0)
    wild = case.any_of("nan_loss", "non_finite_gradient") and ratio > WILD_UPDATE_RATIO
    high = case.any_of("update_ratio_high") or wild
    reasons: list[Reason] = [("because.update_size", {"value": ratio})] if wild else []
    weight = 2.0 + 3.0 * high + 1.0 * wild + 1.0 * case.any_of("loss_divergence")
    if "update_ratio" in case.steady:
        weight -= 1.5
    causes: list[Cause] = []
    early = case.opened_at <= max(100, 2 * case.facts.warmup_steps)
    alarming = case.any_of("update_ratio_high", "loss_divergence", "gradient_exploding", "nan_loss")
    if early and alarming and case.facts.learning_rate is not None and case.facts.warmup_steps < 20:
        reason: Reason = ("because.no_warmup", {"warmup_steps": case.facts.warmup_steps})
        # Too short a warm-up shows in the updates before it shows in the loss.
        against = UPDATES_AS_EVER if _updates_as_ever(case) and not high else 0.0
        against += 1.0 if ratio > SWAMPED else 0.0  # no warm-up makes such a rate a good one
        causes.append(Cause("warmup_too_short", max(weight + 0.5 - against, 0.5), (reason,)))
    lr = case.moved.get("lr")
    falls = lr is not None and not lr.rose  # a schedule on its way down
    if ("lr" in case.steady or falls) and case.opened_at > case.facts.warmup_steps + 10:
        weight -= 2.0  # this rate, or a higher one, was right until now
        if high:
            causes.append(Cause("optimizer_state_stale", 6.0, (("because.updates_alone", {}),)))
        elif case.any_of("loss_divergence") and not _rose_before(case, "update_ratio") and same_data(case):
            causes.append(Cause("objective_changed", 3.5, (("because.loss_alone", {}),)))
    return [*causes, Cause("learning_rate_too_high", max(weight, 0.5), tuple(reasons))]


def _updates_as_ever(case: Circumstances) -> bool:
    """Whether the updates are known not to have grown before the incident's first sign."""
    known = "update_ratio" in case.moved or "update_ratio" in case.steady
    return known and not _rose_before(case, "update_ratio")


def _rose_before(case: Circumstances, quantity: str) -> bool:
    """Whether it had grown by the incident's first sign: what rises afterwards follows from it."""
    moved = case.moved.get(quantity)
    return moved is not None and moved.rose and moved.since <= case.opened_at


def same_data(case: Circumstances) -> bool:
    """Whether the batches are known to be made up as before."""
    return "distinct_tokens" in case.steady and "label_match" not in case.moved


def causes_of_stillness(case: Circumstances) -> list[Cause]:
    """Gradients or updates that have become too small, and a loss that stands still."""
    if not case.any_of("gradient_vanishing", "loss_plateau", "update_ratio_low"):
        return []
    causes = [Cause("backward_fades", 3)] if case.any_of("gradient_vanishing") else []
    rms, eps = case.evidence("gradient_vanishing", "rms"), case.facts.adam_eps
    if rms is not None and eps is not None and eps > USUAL_EPS and float(rms) > 3 * USUAL_EPS:
        return [Cause("eps_too_large", 6, (("because.eps", {"value": float(rms), "eps": eps}),))]
    jump = case.lr_jump
    lr = case.moved.get("lr")
    if (lr is not None and lr.ratio < 0.1) or (jump is not None and not jump.rose):
        change = jump or lr
        assert change is not None
        reason: Reason = (
            "because.lr_fell",
            {"before": change.before, "after": change.after, "since": change.since},
        )
        causes.append(Cause("learning_rate_zero", 5, (reason,)))
    if case.facts.precision == "fp16":
        causes.append(Cause("fp16_underflow", 3.5))
    if case.any_of("update_ratio_low") and not causes:
        causes.append(Cause("optimizer_state_stale", 3.5, (("because.updates_alone", {}),)))
    if case.any_of("loss_plateau"):
        ratio = case.latest.get("update_ratio", 0.0)
        if not causes and 0.0 < ratio < TINY_UPDATE_RATIO:
            return [Cause("learning_rate_too_low", 3.0, (("because.update_size", {"value": ratio}),))]
        collapsed = case.evidence("loss_plateau", "unigram") is not None
        causes.append(Cause("blocks_collapsed" if collapsed else "not_learning", 2.5))
    return causes
