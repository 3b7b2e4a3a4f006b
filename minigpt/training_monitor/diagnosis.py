"""A finding in plain words: what was seen, what else moved, since when, the likely causes, and what to try."""

import re
from dataclasses import asdict, dataclass

from minigpt.training_monitor.causes import Circumstances, Explanation, Reason, explain
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incidents import EXACT_RANKS, rank
from minigpt.training_monitor.movements import Movement, sized
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.words.tables import WORDS, Words

SERIOUS_RIVAL = 0.55
"""Share of the likeliest cause's weight from which another is told as well."""
NO_NORM = -1.0
"""The gradient norm of a record that has none."""
EXTRAS = (
    "normal",
    "declining_since",
    "loss_improvement",
    "group",
    "module",
    "document",
    "bundle",
    "overflows_in_a_row",
    "new_normal",
)
PERCENTAGES = {
    "loss_improvement": None,
    "value": ("gradient_underflow", "dead_units", "label_mismatch", "label_leak"),
    "normal": ("gradient_underflow", "dead_units", "label_mismatch", "label_leak"),
}
"""Evidence shown as a percentage, for these findings (None: for all)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding in plain words."""

    finding: Finding
    headline: str
    """`⚠️ Anomaly detected at step 14: gradient_vanishing`: in English always, because people grep it."""
    seen: str
    moved: str
    """What else changed with it; may be empty."""
    duration: str
    """Transient or sustained, and since when."""
    cause: str
    """The likeliest cause and what speaks for it."""
    causes: tuple[str, ...]
    """Names of the likely causes, likeliest first."""
    rivals: str
    """Other causes that the evidence does not tell apart from it; may be empty."""
    ruled_out: str
    remedies: tuple[str, ...]
    incident: int
    """Findings of one incident share its number; 0: none was given."""
    labels: Words
    explanation: Explanation
    """All causes with their weights."""

    def lines(self) -> list[str]:
        """The text for console and log; an incident that is over needs no advice."""
        label = self.labels
        if self.finding.status in ("transient", "resolved"):
            return [f"{self.finding.name}: {self.duration}; {self.seen}"]
        told = {
            "seen_label": self.seen,
            "moved_label": self.moved,
            "duration_label": self.duration,
            "cause_label": self.cause,
            "other_label": self.rivals,
            "cleared_label": self.ruled_out,
            "remedy_label": label["remedy_separator"].join(self.remedies),
        }
        return [self.headline, *(f"   {label[key]}{text}" for key, text in told.items() if text)]

    def as_event(self) -> Event:
        """The event for the sinks."""
        data = asdict(self.finding)
        data |= {"incident": self.incident, "cause": self.cause, "causes": list(self.causes)}
        data["remedies"] = list(self.remedies)
        text = "\n".join(self.lines())
        return Event(self.finding.step, "anomaly", self.finding.name, text, self.finding.interrupts, data)


def diagnose(
    finding: Finding,
    facts: RunFacts,
    language: str,
    circumstances: Circumstances | None = None,
    incident: int = 0,
) -> Diagnosis:
    """The diagnosis of a finding in "en" or "zh", with what is known of the rest of its incident."""
    words = WORDS[language]
    case = circumstances or Circumstances({finding.name: finding}, {}, None, facts, finding.opened_at)
    explanation = explain(case)
    first, *others = explanation.causes
    serious = [cause for cause in others if cause.weight >= SERIOUS_RIVAL * first.weight][:2]
    return Diagnosis(
        finding=finding,
        headline=f"⚠️ Anomaly detected at step {finding.step}: {finding.name}",
        seen=_seen(finding, words),
        moved=_moved(finding, case, words),
        duration=_duration(finding, words),
        cause=_cause(first.name, first.reasons, words),
        causes=tuple(cause.name for cause in explanation.causes),
        rivals=words["reason_separator"].join(_cause(cause.name, cause.reasons, words) for cause in serious),
        ruled_out=_ruled_out(explanation, words),
        remedies=_remedies([first.name, *(cause.name for cause in serious)], finding, facts, words),
        incident=incident,
        labels=words,
        explanation=explanation,
    )


def _duration(finding: Finding, words: Words) -> str:
    exact = finding.status == "suspected" and finding.interrupts and rank(finding.name) < EXACT_RANKS
    at_once = finding.status == "sustained" and finding.length <= 1
    return words["broken" if exact else "at_once" if at_once else finding.status].format(
        opened_at=finding.opened_at, length=finding.length, step=finding.step
    )


def _cause(name: str, reasons: tuple[Reason, ...], words: Words) -> str:
    sentence = words[f"cause.{name}"]
    told = words["reason_separator"].join(
        words[key].format(**{name: _shown(name, value, "") for name, value in values.items()})
        for key, values in reasons
        if _fields(words[key]) <= values.keys()
    )
    return f"{sentence} ({told})" if told else sentence


def _ruled_out(explanation: Explanation, words: Words) -> str:
    return words["separator"].join(words[key].format(**values) for key, values in explanation.ruled_out)


def _evidence(finding: Finding, words: Words) -> dict[str, str]:
    """The evidence as people read it, without what would mislead them."""
    evidence = finding.evidence
    shown = {key: _shown(key, value, finding.name) for key, value in evidence.items()}
    if evidence.get("grad_norm") == NO_NORM:
        del shown["grad_norm"]
    if "phase" in shown:
        shown["phase"] = words.get(f"phase.{shown['phase']}", shown["phase"])
    if "module" in shown:  # says it more exactly
        shown.pop("group", None)
    if evidence.get("sequences_hit", 0) == evidence.get("sequences", 1):
        shown.pop("document", None)  # every text of the batch is hit: none is special
    return shown


def _seen(finding: Finding, words: Words) -> str:
    evidence = _evidence(finding, words)
    parts = [
        part.format(**evidence)
        for part in words[f"{finding.name}.seen"].split("|")
        if _fields(part) <= evidence.keys()
    ]
    said = _fields(words[f"{finding.name}.seen"])
    for key in EXTRAS:
        phrase = words.get(f"{finding.name}.{key}") or words.get(f"also.{key}")
        if key in evidence and key not in said and phrase:
            parts += [phrase.format(**evidence)] if _fields(phrase) <= evidence.keys() else []
    if "update_skipped" in finding.evidence:
        parts.append(words["update.refused" if finding.evidence["update_skipped"] else "update.applied"])
    return words["separator"].join(parts)


def _fields(phrase: str) -> set[str]:
    """Names of the numbers that a phrase is filled with."""
    return set(re.findall(r"{(\w+)}", phrase))


def _moved(finding: Finding, case: Circumstances, words: Words) -> str:
    """What changed besides the finding's own number."""
    own = {"loss_": "loss", "gradient_": "grad_norm", "update_ratio": "update_ratio", "label_": "label_match"}
    skipped = {quantity for prefix, quantity in own.items() if finding.name.startswith(prefix)}
    moved = {name: movement for name, movement in case.moved.items() if name not in skipped}
    return words["separator"].join(_movement(name, movement, words) for name, movement in moved.items())


def _movement(name: str, movement: Movement, words: Words) -> str:
    return words[f"moved.{name}"].format(
        before=_shown(name, movement.before, ""),
        after=_shown(name, movement.after, ""),
        sized=sized(movement.ratio),
        since=movement.since,
    )


def _shown(key: str, value: float | int | str | bool, name: str) -> str:
    """Evidence for people: three digits, percentages where the number is a share."""
    if isinstance(value, float) and key in PERCENTAGES:
        only = PERCENTAGES[key]
        if only is None or name in only:
            return f"{100 * value:.3g}%"
    if key == "loss" and isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _remedies(causes: list[str], finding: Finding, facts: RunFacts, words: Words) -> tuple[str, ...]:
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
