"""What to try, with the exact setting where the run's own numbers are known."""

import re

from minigpt.training_monitor.circumstances import Circumstances
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.usual import (
    OUTGROWN,
    SWAMPED,
    TINY_UPDATE_RATIO,
    USUAL_EPS,
    USUAL_UPDATE_RATIO,
    USUAL_WEIGHT_DECAY,
)
from minigpt.training_monitor.words.tables import Words


def remedies_for(causes: list[str], finding: Finding, case: Circumstances, words: Words) -> tuple[str, ...]:
    """What to try, with the exact --set where the run's own numbers are known; most for the likeliest cause."""
    facts = case.facts
    lower = _lower_rate(finding, case)
    higher = _higher_rate(case)
    clip = facts.max_grad_norm / 2 if facts.max_grad_norm else 1.0
    known = {
        "lower_lr": f"{lower:g}" if lower else words["half_lr"],
        "higher_lr": f"{higher:g}" if higher else "...",
        "lower_decay": f"{_lower_decay(facts):g}",
        "clip": f"{clip:g}",
        "fitting_clip": f"{_fitting_clip(case) or 1.0:g}",
        "lower_eps": f"{_lower_eps(finding):g}",
        "longer_warmup": str(max(2 * facts.warmup_steps, 100)),
        "lower_floor": f"{float(finding.evidence.get('floor', 1e-6)) / 100:g}",
    }
    texts: list[str] = []
    for place, cause in enumerate(causes):
        advice = [text.format(**known) for text in words[f"remedies.{cause}"].split("\n")]
        advice = [text for text in advice if _is_news(text, facts) and text not in texts]
        texts += advice if place == 0 else advice[:1]
    return tuple(text if facts.has_command_line else _as_settings(text) for text in texts)


def _lower_rate(finding: Finding, case: Circumstances) -> float | None:
    """A learning rate to try: the one that brings updates of a known size down to a usual one, else half of it."""
    if not case.facts.learning_rate:
        return None
    half = case.facts.learning_rate / 2
    lr, ratio = case.latest.get("lr"), case.latest.get("update_ratio", 0.0)
    if finding.name == "update_ratio_high":
        ratio = max(ratio, float(finding.evidence.get("value", 0.0)))
    growth = _growth(case, "weight_norm")
    if ratio > SWAMPED or growth > OUTGROWN:
        ratio *= max(1.0, growth)  # what large updates have made of the weights is no measure of them
    if lr is None or ratio < 10 * USUAL_UPDATE_RATIO:
        return half
    return min(half, _rounded(lr * USUAL_UPDATE_RATIO / ratio))


def _higher_rate(case: Circumstances) -> float | None:
    """A learning rate to try: the one that brings updates of a known, tiny size up to a usual one, else three times."""
    if not case.facts.learning_rate:
        return None
    lr, ratio = case.latest.get("lr"), case.latest.get("update_ratio", 0.0)
    if lr is None or not 0.0 < ratio < TINY_UPDATE_RATIO:
        return case.facts.learning_rate * 3
    return max(case.facts.learning_rate * 3, _rounded(lr * USUAL_UPDATE_RATIO / ratio))


def _growth(case: Circumstances, quantity: str) -> float:
    """How many times its oldest remembered value a quantity is now; 1 where that is not known."""
    before, now = case.earliest.get(quantity, 0.0), case.latest.get(quantity, 0.0)
    return now / before if before > 0 and now > 0 else 1.0


def _fitting_clip(case: Circumstances) -> float | None:
    """A max_grad_norm that only outliers exceed: twice the usual norm."""
    ratio, limit = case.evidence("clip_saturation", "ratio"), case.evidence("clip_saturation", "threshold")
    return _rounded(2.0 * float(ratio) * float(limit)) if ratio and limit else None


def _lower_eps(finding: Finding) -> float:
    """An eps to try: the usual one, or a hundredth of gradients that are smaller than that."""
    rms = float(finding.evidence.get("rms", 1.0))
    return USUAL_EPS if rms > 100 * USUAL_EPS else _rounded(rms / 100)


def _rounded(number: float) -> float:
    return float(f"{number:.1g}") or number


def _lower_decay(facts: RunFacts) -> float:
    """A weight decay to try: the usual one where it is far above that, else a tenth of it."""
    decay = facts.weight_decay or 0.0
    return USUAL_WEIGHT_DECAY if decay > 2 * USUAL_WEIGHT_DECAY else decay / 10 or 0.01


def _as_settings(text: str) -> str:
    """For a loop that is not MiniGPT's: the setting's own name and value, without --set and section."""
    text = re.sub(r"[:：]\s*--resume healthy", "", text)
    return re.sub(r"--set (?:\w+\.)*(\w+)=", r"\1=", text)


def _is_news(remedy: str, facts: RunFacts) -> bool:
    """Whether the run is not already as the remedy would have it."""
    if "training.mixed_precision=" in remedy and facts.precision not in ("fp16", None):
        return False
    if "optimizer.betas=" in remedy and facts.optimizer is not None and "adam" not in facts.optimizer:
        return False
    return not any(f"--set {setting}" in remedy for setting in facts.in_force)
