"""Whether what was said of one fault was right: noticed, named, in time, and as lasting as it was."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from minigpt.lab.drill.judge import Hearing, Told
from minigpt.lab.drill.scenario import Fault

PROMPT_STEPS = 60
"""Within so many steps a fault is noticed promptly."""
EVENT_STEPS = 3
"""A fault that is over in a few steps must have its event within so many."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the monitor did on one training with a fault."""

    fault: str
    seed: int
    lasting: bool
    slow: bool
    noticed_at: int | None
    """The step of the first telling that counts: None, the fault was missed."""
    delay: int | None
    """Steps from the fault's onset to it."""
    first: str
    """What was said first after the onset (of faults that last: what interrupted first, unless an event will do)."""
    first_right: bool
    """Whether that, or the cause told with it, names the fault."""
    final_right: bool
    """Whether the last word on the same matter does."""
    duration_right: bool
    """Whether it was told as transient or as lasting, whichever it is."""
    too_early: int
    """Interruptions before the onset."""

    @property
    def noticed(self) -> bool:
        return self.noticed_at is not None

    @property
    def prompt(self) -> bool:
        return self.delay is not None and self.delay <= PROMPT_STEPS


def judge_fault(fault: Fault, seed: int, hearing: Hearing) -> Verdict:
    """Compares what was said with what is true."""
    after = [told for told in hearing.told if told.step >= fault.onset and told.opened_at >= fault.onset - 1]
    counting = _counting(fault, after)
    right, plausible = set(fault.labels), {*fault.labels, *fault.symptoms}
    noticed = _first_noticed(counting, after, plausible)
    first = counting[0] if counting else None
    return Verdict(
        fault=fault.name,
        seed=seed,
        lasting=fault.lasting,
        slow=fault.slow,
        noticed_at=noticed.step if noticed else None,
        delay=noticed.step - fault.onset if noticed else None,
        first=_words(first),
        first_right=any(_names(told, right) for told in counting if first and told.step == first.step),
        final_right=noticed is not None and _final_right(noticed, after, right),
        duration_right=noticed is not None and _duration_right(fault, after, plausible),
        too_early=sum(told.interrupts for told in hearing.told if told.step < fault.onset),
    )


def _counting(fault: Fault, after: Sequence[Told]) -> list[Told]:
    """What can be the notice of a fault: an interruption, or an event where that is enough."""
    if fault.lasting and not fault.event_is_enough:
        return [told for told in after if told.interrupts]
    last = float("inf") if fault.lasting else fault.onset + (fault.steps_wrong or 1) - 1 + EVENT_STEPS
    return [told for told in after if told.status in ("suspected", "sustained") and told.step <= last]


def _first_noticed(counting: Sequence[Told], after: Sequence[Told], names: Collection[str]) -> Told | None:
    """The first telling whose incident has, by then, a finding or cause among `names`."""
    for told in counting:
        incident = [other for other in after if other.incident == told.incident and other.step <= told.step]
        if any(_names(other, names) for other in incident):
            return told
    return None


def _final_right(noticed: Told, after: Sequence[Told], right: Collection[str]) -> bool:
    """Whether the last interruption of the incident, or the cause it ends with, names the fault."""
    incident = [told for told in after if told.incident == noticed.incident]
    interrupting = [told for told in incident if told.interrupts] or incident
    return _names(interrupting[-1], right) or _names(incident[-1], right)


def _duration_right(fault: Fault, after: Sequence[Told], names: Collection[str]) -> bool:
    said = [told for told in after if told.finding in names or set(told.causes[:1]) & set(names)]
    if fault.lasting:
        return any(told.status == "sustained" or told.interrupts for told in said) or fault.event_is_enough
    return any(told.status == "transient" for told in said) and not any(
        told.status == "sustained" for told in said
    )


def _names(told: Told, names: Collection[str]) -> bool:
    return told.finding in names or bool(set(told.causes[:1]) & set(names))


def _words(told: Told | None) -> str:
    if told is None:
        return ""
    cause = told.causes[0] if told.causes else ""
    return told.finding if cause in ("", told.finding) else f"{told.finding} ({cause})"
