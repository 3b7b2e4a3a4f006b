"""The verdict on a recorded run: the monitor's own rules over its steps, after the fact."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt.training_monitor.action import Stop
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import RULES
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.records.record import Note
from minigpt.training_monitor.records.timeline import Timeline
from minigpt.training_monitor.report.episodes import Episodes
from minigpt.training_monitor.report.reasons import Reason, sick_reasons, watch_reasons
from minigpt.training_monitor.report.summary import Summary, phases_of
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

Health = Literal["healthy", "watch", "sick"]
EXIT_CODES: dict[Health, int] = {"healthy": 0, "watch": 3, "sick": 4}
FEW_STEPS = 24
"""Recorded steps below which the rules have not learnt what is normal."""
PATIENT = ("gradient_vanishing",)
"""Rules that hold their tongue at the start only because the next steps may prove them wrong."""
FINER_LIVE = frozenset(
    ("missing_gradient", "dead_layer", "frozen_parameter", "weight_jump", "update_ratio_high")
)
"""Rules that see single parameters while a run is on, and only layer groups in its record: what was said then holds."""

BETTER_LIVE = frozenset(("loss_plateau",))
"""Rules that know more of the corpus while a run is on than its record tells: what was said then holds."""

Watch = Callable[[Iterator[StepSignals]], Iterable[StepSignals]]


@dataclass(frozen=True, slots=True)
class NotJudged:
    """Findings that this record could not have shown."""

    missing: tuple[str, ...]
    """Fields of StepSignals; () when the rule is switched off."""
    findings: tuple[str, ...]
    told_live: bool
    """Whether the run's own monitor watched them while it ran."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a run."""

    health: Health
    reasons: tuple[Reason, ...]
    timeline: Timeline
    summary: Summary
    episodes: Episodes
    not_judged: tuple[NotJudged, ...]
    notes: tuple[Note, ...]
    stopped_at: int | None
    """Step at which the run's monitor stopped it."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.health]


def judge(
    timeline: Timeline,
    config: MonitorConfig | None = None,
    facts: RunFacts | None = None,
    watch: Watch = lambda steps: steps,
) -> Verdict:
    """The verdict on a run; reads its record once more, a step at a time.

    `watch` may wrap the steps, to show how far it is.
    """
    facts = facts or RunFacts(
        warmup_steps=timeline.warmup_steps or 0, has_command_line=timeline.source.is_minigpt
    )
    facts = replace(facts, resumed=facts.resumed or timeline.first > max(10, 2 * timeline.every))
    config = config or MonitorConfig()
    rules = _rules_for(timeline, config)
    monitor = TrainingMonitor(rules, facts=facts)
    warmup_steps = facts.warmup_steps or timeline.warmup_steps
    summary = Summary(
        timeline.first,
        timeline.last,
        phases_of(timeline.first, timeline.last, timeline.count, warmup_steps),
        facts.max_grad_norm,
        bool(timeline.present["clipped"]),
    )
    episodes = Episodes()
    would_stop: int | None = None
    for signals in watch(timeline.steps()):
        observation = monitor.observe(signals)
        if observation.findings:
            episodes.observe(observation)
        if isinstance(observation.action, Stop) and would_stop is None:
            would_stop = signals.step
        summary.add(
            signals, has_loss=timeline.has_loss, has_norm=timeline.has_norm, is_normal=episodes.is_calm
        )
    episodes.finish(summary.last_step)
    not_judged = _not_judged(timeline, config, facts)
    _recall(timeline, not_judged, episodes)
    stopped_at = _stopped_at(timeline, would_stop)
    reasons = [*sick_reasons(episodes, summary, stopped_at)]
    health: Health = "sick" if reasons else "healthy"
    reasons += watch_reasons(episodes, summary, {str(reason.values.get("name")) for reason in reasons})
    if reasons and health == "healthy":
        health = "watch"
    notes = (*timeline.notes, *_notes(timeline))
    return Verdict(health, tuple(reasons), timeline, summary, episodes, not_judged, notes, stopped_at)


def _rules_for(timeline: Timeline, config: MonitorConfig) -> MonitorConfig:
    """The rules that this record can feed. A rule's patience at the start makes no sense where the record ends
    before it: what is open then cannot be waited for."""
    changes: dict[str, Any] = {"enabled": True}
    live = timeline.source.watched_live and config.enabled
    absent = {name for name in ("loss", "grad_norm") if not timeline.present[name]}
    for name, rule in RULES.items():
        settings = getattr(config, name)
        if absent & set(rule.needs) or (live and name in FINER_LIVE | BETTER_LIVE):
            changes[name] = replace(settings, enabled=False)
        elif name in PATIENT and settings.first_step > timeline.last:
            changes[name] = replace(settings, first_step=1)
    return replace(config, **changes)


def _not_judged(timeline: Timeline, config: MonitorConfig, facts: RunFacts) -> tuple[NotJudged, ...]:
    grouped: dict[tuple[str, ...], list[str]] = {}
    live = timeline.source.watched_live and config.enabled
    for name, rule in RULES.items():
        on = getattr(config, name).enabled
        missing = tuple(need for need in rule.needs if not timeline.present[need]) if on else ()
        if on and live and name in FINER_LIVE:
            missing += ("parameters",)
        if on and name == "initial_loss" and facts.vocab_size is None:
            missing += ("vocab_size",)
        if "scaler_scale" in missing and timeline.present["scaler_overflow"]:
            continue  # it would be there, had there been a scaler
        if missing or not on:
            grouped.setdefault(missing, []).extend(rule.findings)
    live = timeline.source.watched_live and config.enabled
    return tuple(
        NotJudged(missing, tuple(names), live and bool(missing)) for missing, names in grouped.items()
    )


def _recall(timeline: Timeline, not_judged: tuple[NotJudged, ...], episodes: Episodes) -> None:
    """What the run's own monitor said from signals that its record lacks."""
    lost = {name for group in not_judged for name in group.findings}
    if timeline.source.watched_live:
        lost |= {finding for name in BETTER_LIVE for finding in RULES[name].findings}
    known = {name for rule in RULES.values() for name in rule.findings}
    for event in timeline.source.events:
        if event.kind == "anomaly" and (event.name in lost or event.name not in known):
            episodes.recall(event)


def _stopped_at(timeline: Timeline, would_stop: int | None) -> int | None:
    stops = [
        event.step for event in timeline.source.events if event.kind == "action" and event.name == "stop"
    ]
    if would_stop == timeline.last:
        stops.append(timeline.last)
    return next((step for step in stops if step >= timeline.last), None)


def _notes(timeline: Timeline) -> Iterator[Note]:
    if timeline.count < FEW_STEPS:
        yield Note("few", {"count": timeline.count})
    if timeline.every > 1:
        yield Note("sparse", {"every": timeline.every})
    for name, key in (("loss", "no_loss"), ("grad_norm", "no_norm")):
        if not timeline.present[name]:
            yield Note(key)
