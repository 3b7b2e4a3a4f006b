"""A finding in plain words: what was seen, whether it lasts, the likely cause, and what to try."""

from dataclasses import asdict, dataclass

from minigpt.training_monitor.event import Event
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.words import WORDS, Words


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding in plain words."""

    finding: Finding
    headline: str
    """`⚠️ Anomaly detected at step 14: gradient_vanishing`: in English always, because people grep it."""
    seen: str
    duration: str
    """Transient or sustained, and since when."""
    cause: str
    remedies: tuple[str, ...]
    labels: Words

    def lines(self) -> list[str]:
        """The text for console and log; an incident that is over needs no advice."""
        label = self.labels
        if self.finding.status in ("transient", "resolved"):
            return [f"{self.finding.name}: {self.duration}; {self.seen}"]
        return [
            self.headline,
            f"   {label['seen_label']}{self.seen}",
            f"   {label['duration_label']}{self.duration}",
            f"   {label['cause_label']}{self.cause}",
            f"   {label['remedy_label']}{label['remedy_separator'].join(self.remedies)}",
        ]

    def as_event(self) -> Event:
        """The event for the sinks."""
        data = asdict(self.finding)
        data["cause"] = self.cause
        data["remedies"] = list(self.remedies)
        text = "\n".join(self.lines())
        return Event(self.finding.step, "anomaly", self.finding.name, text, self.finding.interrupts, data)


def diagnose(finding: Finding, facts: RunFacts, language: str) -> Diagnosis:
    """The diagnosis of a finding, in "en" or "zh"."""
    words = WORDS[language]
    return Diagnosis(
        finding=finding,
        headline=f"⚠️ Anomaly detected at step {finding.step}: {finding.name}",
        seen=_seen(finding, words),
        duration=words[finding.status].format(
            opened_at=finding.opened_at, length=finding.length, step=finding.step
        ),
        cause=words[f"{finding.name}.cause"] if not _is_overflow(finding) else words["overflow.cause"],
        remedies=_remedies(finding, facts, words),
        labels=words,
    )


def _is_overflow(finding: Finding) -> bool:
    return finding.name == "non_finite_gradient" and "overflows_in_a_row" in finding.evidence


def _seen(finding: Finding, words: Words) -> str:
    evidence = finding.evidence
    parts = [words[f"{finding.name}.seen"].format_map(_Shown(evidence))]
    for key in ("normal", "declining_since", "loss_improvement", "group", "overflows_in_a_row", "new_normal"):
        phrase = words.get(f"{finding.name}.{key}") or words.get(f"also.{key}")
        if key in evidence and phrase:
            parts.append(phrase.format_map(_Shown(evidence)))
    if "update_skipped" in evidence:
        parts.append(words["update.refused" if evidence["update_skipped"] else "update.applied"])
    return words["separator"].join(parts)


class _Shown(dict[str, str]):
    """Evidence formatted for people: three digits, percentages where the name says fraction."""

    def __init__(self, evidence: object) -> None:
        assert hasattr(evidence, "items")
        super().__init__({key: _shown(key, value) for key, value in evidence.items()})

    def __missing__(self, key: str) -> str:
        return "?"


def _shown(key: str, value: float | int | str) -> str:
    if key == "loss_improvement" and isinstance(value, float):
        return f"{100 * value:.2f}%"
    if key == "loss" and isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _remedies(finding: Finding, facts: RunFacts, words: Words) -> tuple[str, ...]:
    """What to try, with the exact --set where the run's own numbers are known."""
    lower = facts.learning_rate / 2 if facts.learning_rate else None
    clip = facts.max_grad_norm / 2 if facts.max_grad_norm else 1.0
    known = {
        "lower_lr": f"{lower:g}" if lower else words["half_lr"],
        "clip": f"{clip:g}",
        "longer_warmup": str(max(2 * facts.warmup_steps, 100)),
        "lower_floor": f"{float(finding.evidence.get('floor', 1e-6)) / 100:g}",
    }
    key = "overflow" if _is_overflow(finding) else finding.name
    texts = [text.format(**known) for text in words[f"{key}.remedies"].split("\n")]
    return tuple(text for text in texts if _is_news(text, facts))


def _is_news(remedy: str, facts: RunFacts) -> bool:
    """Whether the run is not already as the remedy would have it."""
    if "training.mixed_precision=" in remedy and facts.precision not in ("fp16", None):
        return False
    return not any(f"--set {setting}" in remedy for setting in facts.in_force)
