"""The monitor: signals of a step in, findings, diagnoses and one action out. It touches no model."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minigpt.training_monitor.action import Action, Continue, action_event
from minigpt.training_monitor.causality_beat import CausalityBeat
from minigpt.training_monitor.circumstances import Cause, Circumstances
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.registry import build_detectors
from minigpt.training_monitor.diagnosis import Diagnosis, diagnose
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incidents import MERGE_STEPS, Case, IncidentBook, rank
from minigpt.training_monitor.movements import Movement, Movements
from minigpt.training_monitor.policy import Policy
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.suspicion import Suspicion

if TYPE_CHECKING:
    from minigpt.training_monitor.facade import LoopMonitor

STATE_VERSION = 2
"""Of `state_dict`; it changes when a rule remembers other things than before."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one step meant."""

    findings: list[Finding] = field(default_factory=list)
    action: Action = field(default_factory=Continue)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    """One for each finding, in the same order."""
    events: list[Event] = field(default_factory=list)
    """For the sinks: one for each finding, and one for an action that is not Continue."""


class _OfAnyLoop:
    """LoopMonitor itself, signature and all; imported only when asked for, for it imports torch."""

    def __get__(self, instance: object, owner: type) -> "type[LoopMonitor]":
        from minigpt.training_monitor.facade import LoopMonitor

        return LoopMonitor


class TrainingMonitor:
    """Feed `observe` every step's signals, in order; carry its action out; hand its events to the sinks.

    In a PyTorch loop of your own, `TrainingMonitor.for_model(model, optimizer, ...)` gives a LoopMonitor that takes
    the signals by itself: call its `step(loss)` between backward and optimizer.step. The more it is told, the more can
    be judged.
    """

    for_model = _OfAnyLoop()

    def __init__(
        self,
        config: MonitorConfig | None = None,
        *,
        facts: RunFacts | None = None,
    ) -> None:
        self.config = config or MonitorConfig()
        self._facts = facts or RunFacts()
        self._detectors = build_detectors(self.config, self._facts) if self.config.enabled else {}
        self._policy = Policy(self.config.policy, self.config.fp16, self.config.language)
        self._incidents = IncidentBook()
        self._movements = Movements()
        self._suspicion = Suspicion(MERGE_STEPS)
        self._open: dict[str, str] = {}
        self._told: dict[str, Diagnosis] = {}
        self._causality = CausalityBeat(self.config.future_leak.again_below)

    @property
    def open_findings(self) -> dict[str, str]:
        """Name -> "suspected" or "sustained" of every incident now open: {} means healthy."""
        return dict(self._open)

    def observe(
        self, signals: StepSignals, investigate: Callable[[Finding], Evidence] | None = None
    ) -> Observation:
        """What this step means. Under 0.1 ms; a healthy step gives an empty Observation.

        `investigate` may look closer at a finding (which module, which document) before it is put into words: it
        gives more evidence, or {}.
        """
        found: list[Finding] = []
        for detector in self._detectors.values():
            found += detector.observe(signals)
        self._movements.add(signals)
        self._causality.note(signals.step, signals.loss, signals.future_influence, self._open)
        action = self._policy.decide(signals, found) if self.config.enabled else Continue()
        if not found and isinstance(action, Continue):
            self._suspicion.note(signals.step, self._incidents.youngest)
            return Observation()
        if investigate is not None:
            found = [_enriched(finding, investigate(finding)) for finding in found]
        entered = self._incidents.enter(found)
        self._suspicion.note(signals.step, self._incidents.youngest)
        for finding, _ in entered:
            if finding.status in ("suspected", "sustained"):
                self._open[finding.name] = finding.status
            else:
                self._open.pop(finding.name, None)
        diagnoses = [self._diagnose(finding, case) for finding, case in entered]
        self._told |= {diagnosis.finding.name: diagnosis for diagnosis in diagnoses}
        events = [diagnosis.as_event() for diagnosis in diagnoses]
        if not isinstance(action, Continue):
            events.append(action_event(action))
        return Observation([finding for finding, _ in entered], action, diagnoses, events)

    def _diagnose(self, finding: Finding, case: Case) -> Diagnosis:
        moved, steady = self._movements.around(case.opened_at)
        circumstances = Circumstances(
            findings=case.members,
            moved=moved,
            lr_jump=self._lr_jump(case.opened_at),
            facts=self._facts,
            opened_at=case.opened_at,
            steady=steady,
            latest=self._movements.latest(),
            earliest=self._movements.earliest(),
            consequences=frozenset(name for name, member in case.members.items() if case.follows(member)),
            told=None if case.cause is None else Cause.from_dict(case.cause),
        )
        diagnosis = diagnose(finding, self._facts, self.config.language, circumstances, case.number)
        if finding.interrupts:
            case.cause = diagnosis.explanation.causes[0].as_dict()
        return diagnosis

    @property
    def trouble_since(self) -> int | None:
        """The first bad step of open findings that came over a healthy run; None: there are none."""
        return self._policy.trouble_since

    def skip_above(self, step: int) -> float | None:
        """The gradient norm above which the loop calls the update of `step` off; None: no such bound."""
        return self._policy.skip_above(step) if self.config.enabled else None

    def verdict(self, cause: str) -> list[str]:
        """What was told of the incident that the finding `cause` belongs to, by its best explanation.

        Empty, if it was before the monitor's state was last restored.
        """
        if cause not in self._told:
            return []
        incident = self._told[cause].incident
        members = [told for told in self._told.values() if told.incident == incident]
        lasting = [told for told in members if told.finding.status == "sustained"]
        return min(lasting or [self._told[cause]], key=lambda told: rank(told.finding.name)).lines()

    def causality_is_due(self, step: int) -> bool:
        """Whether to look, in this step, if the model sees the future."""
        return self.config.enabled and self.config.check_causality and self._causality.is_due(step)

    def look_is_due(self, step: int) -> bool:
        """Whether step's forward deserves a closer look: on a slow beat, and sooner while something is suspected."""
        every, sooner = self.config.look_every_steps, self.config.look_every_steps_on_suspicion
        if not self.config.enabled or not every:
            return False
        return step % every == 0 or bool(sooner and step % sooner == 0 and self._suspicion.is_young_at(step))

    def _lr_jump(self, opened_at: int) -> Movement | None:
        """A change of the learning rate from one step to the next that is no warm-up: its first steps double."""
        large = self._movements.jump("lr", opened_at, factor=3.0)
        if large is not None or opened_at <= self._facts.warmup_steps + 40:
            return large
        return self._movements.jump("lr", opened_at, factor=1.8)

    def declare_change(self) -> None:
        """The user changed something on purpose (data mixture, learning rate, unfrozen layers): what was normal
        before is no yardstick any more."""
        for detector in self._detectors.values():
            detector.rebase()

    def state_dict(self) -> dict[str, Any]:
        """Everything that later findings depend on, as plain values."""
        return {
            "version": STATE_VERSION,
            "detectors": {name: detector.state_dict() for name, detector in self._detectors.items()},
            "policy": self._policy.state_dict(),
            "incidents": self._incidents.state_dict(),
            "movements": self._movements.state_dict(),
            "suspicion": self._suspicion.state_dict(),
            "open": dict(self._open),
            "causality": self._causality.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Restores a state; a rule that was switched on since starts fresh, and all do if the state is of another
        version. Whether it was not."""
        if state.get("version") != STATE_VERSION:
            return False
        for name, detector in self._detectors.items():
            if name in state["detectors"]:
                detector.load_state_dict(state["detectors"][name])
        self._policy.load_state_dict(state["policy"])
        self._incidents.load_state_dict(state["incidents"])
        self._movements.load_state_dict(state["movements"])
        self._suspicion.load_state_dict(state["suspicion"])
        self._open = dict(state["open"])
        self._causality.load_state_dict(state["causality"])
        return True


def _enriched(finding: Finding, more: Evidence) -> Finding:
    return replace(finding, evidence={**finding.evidence, **more}) if more else finding
