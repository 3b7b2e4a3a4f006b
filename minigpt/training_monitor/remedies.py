"""What to try, with the exact setting where the run's own numbers are known."""

import re

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.words.tables import Words


def remedies_for(causes: list[str], finding: Finding, facts: RunFacts, words: Words) -> tuple[str, ...]:
    """What to try, with the exact --set where the run's own numbers are known; most for the likeliest cause."""
    lower = facts.learning_rate / 2 if facts.learning_rate else None
    higher = facts.learning_rate * 3 if facts.learning_rate else None
    clip = facts.max_grad_norm / 2 if facts.max_grad_norm else 1.0
    known = {
        "lower_lr": f"{lower:g}" if lower else words["half_lr"],
        "higher_lr": f"{higher:g}" if higher else "...",
        "lower_decay": f"{facts.weight_decay / 10:g}" if facts.weight_decay else "0.01",
        "clip": f"{clip:g}",
        "longer_warmup": str(max(2 * facts.warmup_steps, 100)),
        "lower_floor": f"{float(finding.evidence.get('floor', 1e-6)) / 100:g}",
    }
    texts: list[str] = []
    for place, cause in enumerate(causes):
        advice = [text.format(**known) for text in words[f"remedies.{cause}"].split("\n")]
        advice = [text for text in advice if _is_news(text, facts) and text not in texts]
        texts += advice if place == 0 else advice[:1]
    return tuple(text if facts.has_command_line else _as_settings(text) for text in texts)


def _as_settings(text: str) -> str:
    """For a loop that is not MiniGPT's: the setting's own name and value, without --set and section."""
    text = re.sub(r"[:：]\s*--resume healthy", "", text)
    return re.sub(r"--set (?:\w+\.)*(\w+)=", r"\1=", text)


def _is_news(remedy: str, facts: RunFacts) -> bool:
    """Whether the run is not already as the remedy would have it."""
    if "training.mixed_precision=" in remedy and facts.precision not in ("fp16", None):
        return False
    return not any(f"--set {setting}" in remedy for setting in facts.in_force)
