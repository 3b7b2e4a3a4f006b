"""A finding in plain words: what was seen, what else moved, since when, the likely causes, and what to try."""

from dataclasses import asdict, dataclass

from minigpt.training_monitor.causes import explain
from minigpt.training_monitor.circumstances import Circumstances, Explanation, Reason
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.evidence_words import fields, seen_in_words, shown
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incidents import EXACT_RANKS, rank
from minigpt.training_monitor.movements import Movement, sized
from minigpt.training_monitor.remedies import remedies_for
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.words.tables import WORDS, Words

KNOW_SINCE_WHEN = frozenset(
    ("gradient_scale_shift", "overflow_streak", "frozen_parameter", "missing_gradient")
)
"""Findings whose evidence knows the first bad step: they needed several to be sure."""
SERIOUS_RIVAL = 0.55
"""Share of the likeliest cause's weight from which another is told as well."""


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
        seen=seen_in_words(finding, words),
        moved=_moved(finding, case, words),
        duration=_duration(finding, words),
        cause=_cause(first.name, first.reasons, words),
        causes=tuple(cause.name for cause in explanation.causes),
        rivals=words["reason_separator"].join(_cause(cause.name, cause.reasons, words) for cause in serious),
        ruled_out=_ruled_out(explanation, words),
        remedies=remedies_for([first.name, *(cause.name for cause in serious)], finding, case, words),
        incident=incident,
        labels=words,
        explanation=explanation,
    )


def _duration(finding: Finding, words: Words) -> str:
    plain = finding.interrupts and finding.status in ("suspected", "sustained") and finding.length <= 1
    exact = plain and rank(finding.name) < EXACT_RANKS
    at_once = plain and finding.status == "sustained"
    return words["broken" if exact else "at_once" if at_once else finding.status].format(
        opened_at=finding.opened_at, since=_first_bad_step(finding), length=finding.length, step=finding.step
    )


def _first_bad_step(finding: Finding) -> int:
    """Some rules need several steps to be sure, and know since when."""
    since = finding.evidence.get("since") if finding.name in KNOW_SINCE_WHEN else None
    return min(finding.opened_at, since) if isinstance(since, int) else finding.opened_at


def _cause(name: str, reasons: tuple[Reason, ...], words: Words) -> str:
    sentence = words[f"cause.{name}"]
    told = words["reason_separator"].join(
        words[key].format(**{name: shown(name, value, "") for name, value in values.items()})
        for key, values in reasons
        if fields(words[key]) <= values.keys()
    )
    return f"{sentence} ({told})" if told else sentence


def _ruled_out(explanation: Explanation, words: Words) -> str:
    return words["separator"].join(words[key].format(**values) for key, values in explanation.ruled_out)


def _moved(finding: Finding, case: Circumstances, words: Words) -> str:
    """What changed besides the finding's own number."""
    own = {"loss_": "loss", "gradient_": "grad_norm", "update_ratio": "update_ratio", "label_": "label_match"}
    skipped = {quantity for prefix, quantity in own.items() if finding.name.startswith(prefix)}
    moved = {name: movement for name, movement in case.moved.items() if name not in skipped}
    return words["separator"].join(_movement(name, movement, words) for name, movement in moved.items())


def _movement(name: str, movement: Movement, words: Words) -> str:
    return words[f"moved.{name}"].format(
        before=shown(name, movement.before, ""),
        after=shown(name, movement.after, ""),
        sized=sized(movement.ratio),
        since=movement.since,
    )
