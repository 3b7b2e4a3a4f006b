"""frozen_parameter and no_update: gradients are there, the optimizer runs, and yet weights do not move."""

from math import sqrt
from typing import Any

from minigpt.training_monitor.detectors.absence import Absence, Facts, named, out_of_place
from minigpt.training_monitor.detectors.coarse_weights import CoarseWeights
from minigpt.training_monitor.detectors.frozen_parameter_config import FrozenParameterConfig
from minigpt.training_monitor.detectors.gradients_due import GradientsDue
from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.detectors.recurrence import Recurrence
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals

EVERY = 4
"""Steps between two looks at the gradients while everything moves."""
VECTOR_SHARE = 1 / 16
"""Parameters smaller than this share of their layer's largest are vectors (norm scales, biases): in bf16 a scale near
1 cannot take a small step, so they are judged only when they used to move all the time."""


class FrozenParameter:
    """Compares each update with the gradient and the learning rate that should have caused it."""

    def __init__(self, config: FrozenParameterConfig, optimizer: str | None = None) -> None:
        self._config = config
        self._coarse = CoarseWeights(config.coarse_fraction, optimizer)
        self._too_coarse = False
        self._still = Absence(config.persist_steps, late_start=True)
        self._frozen = Incident("frozen_parameter")
        self._nothing = Incident("no_update")
        self._again = Recurrence(config.recur_times, config.recur_steps)
        self._last = LastStep()
        self._due = GradientsDue()
        self._standstill = 0
        self._peak_lr = 0.0
        self._latest_lr = 0.0
        self._counted: float | None = None
        self._counts = False

    def observe(self, signals: StepSignals) -> list[Finding]:
        findings: list[Finding] = []
        if self._last.step is not None and signals.step <= self._last.step:
            return findings
        if self._last.applied_its_update(signals.step):
            moved = self._anything_moved(signals)
            if moved is False:
                findings += self._nothing_moved(signals)
            elif moved:
                self._standstill = 0
                habit = self._nothing.sustained and self._again.holds(signals.step)
                close_steps = self._config.recur_steps if habit else self._config.close_steps
                findings += self._nothing.good(signals.step, close_steps, {})
                if self._last.is_just_before(signals.step) and signals.parameters is not None:
                    findings += self._lost(signals, signals.parameters)
                    findings += self._judge_each(signals.step, signals.parameters)
        self._remember(signals)
        return findings

    def _anything_moved(self, signals: StepSignals) -> bool | None:
        """Whether the last update moved anything; None: it is not known."""
        if signals.parameters is not None and signals.parameters.update_norms is not None:
            return any(signals.parameters.update_norms)
        if signals.update_ratios:
            return any(signals.update_ratios.values())
        if self._last.is_just_before(signals.step) and self._counts and signals.optimizer_steps is not None:
            return signals.optimizer_steps != self._counted
        if self._peak_lr > 0.0:
            # Steps that the record leaves out had rates between the two.
            return (
                max(self._last.lr, signals.lr if not self._last.is_just_before(signals.step) else 0.0) > 0.0
            )
        return None

    def _nothing_moved(self, signals: StepSignals) -> list[Finding]:
        last = self._last
        if last.grad_norm == 0.0 and last.lr > 0.0:
            return []  # nothing to move by: the gradient is the trouble
        planned = signals.scheduled_lr is not None and signals.scheduled_lr == 0.0 == signals.lr
        faded = 0.0 < self._latest_lr < self._config.faded_lr_ratio * self._peak_lr
        if last.lr == 0.0 and (planned or (faded and signals.scheduled_lr is None)):
            return []
        self._standstill += 1
        if last.lr == 0.0 == self._peak_lr and self._standstill < self._config.no_update_steps:
            return []  # a warm-up that begins at zero
        evidence: Facts = {"lr": last.lr, "value": 0.0}
        if signals.scheduled_lr is not None:
            evidence["scheduled_lr"] = signals.scheduled_lr
        if signals.optimizer_steps is not None and self._counted is not None:
            evidence["optimizer_counts"] = signals.optimizer_steps > self._counted
        if self._standstill == 1 and not signals.leftover_grad_norm:
            self._again.note(signals.step)  # gradients that are kept wait for an update: accumulation
        findings = self._nothing.bad(signals.step, evidence)
        if self._standstill >= self._config.no_update_steps or self._again.holds(signals.step):
            findings += self._nothing.sustain(signals.step, evidence)
        return findings

    def _lost(self, signals: StepSignals, parameters: ParameterSignals) -> list[Finding]:
        """Updates that most of the weights are too coarse to take."""
        evidence = self._coarse.judge(signals, parameters, self._last.lr)
        if evidence is None:
            return []
        self._too_coarse = bool(evidence)
        if not evidence:
            return []
        return self._frozen.bad(signals.step, evidence) + self._frozen.sustain(signals.step, evidence)

    def _judge_each(self, step: int, parameters: ParameterSignals) -> list[Finding]:
        facts, updates = parameters.facts, parameters.update_norms
        if updates is None:
            return []
        still = self._still
        if not all(updates):
            still.note(facts.names, self._due.standing(facts, updates))
        else:
            still.note_all_present(facts.names)
            if step % EVERY == 0:
                self._due.note(updates)
        faded = 0.0 < self._last.lr < self._config.faded_lr_ratio * self._peak_lr
        if not still.any_absent or faded:  # updates below the weights' last digit are how a schedule ends
            return [] if self._too_coarse else self._frozen.good(step, self._config.close_steps, {})
        frozen = self._frozen_now(facts)
        if not frozen:
            # A parameter that stands still for a moment is common: no finding before it is overdue.
            rests = self._too_coarse or still.gone()
            return [] if rests else self._frozen.good(step, self._config.close_steps, {})
        evidence = named(facts, frozen)
        evidence["since"] = step - max(still.row(name) for name in frozen)
        evidence["lr"] = self._last.lr
        findings = self._frozen.bad(step, evidence)
        return findings + self._frozen.sustain(step, evidence)

    def _frozen_now(self, facts: ParameterFacts) -> set[str]:
        """Parameters that have stood still for too long."""
        still = self._still
        overdue, never = still.overdue(), still.never(self._config.first_steps)
        if not overdue and not never:
            return set()
        steady = {name for name in overdue if still.longest_gap(name) < self._config.persist_steps}
        matrices = _matrices(facts)
        if any(still.row(name) for name in facts.names if name not in steady and name not in matrices):
            steady &= matrices  # other vectors cannot take their steps either: it is the weights' precision
        # A group whose rate always was 0 is meant to rest; one that comes to rest in mid-run is not.
        out = out_of_place(facts, set(never) - _at_rest(facts), still.present)
        return steady | (matrices & {*overdue, *out})

    def _remember(self, signals: StepSignals) -> None:
        self._last.take(signals)
        if signals.parameters is not None:
            self._due.take(signals.parameters)
        if signals.lr > 0.0:
            self._peak_lr = max(self._peak_lr, signals.lr)
            self._latest_lr = signals.lr
        if signals.optimizer_steps is not None:
            self._counts = self._counts or (self._counted or 0.0) < signals.optimizer_steps
            self._counted = signals.optimizer_steps

    def rebase(self) -> None:
        """What stands still now is meant to."""
        self._still.rebase()
        self._coarse.forget()
        self._too_coarse = False
        self._standstill = 0
        self._peak_lr = self._latest_lr = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "still": self._still.state_dict(),
            "coarse": self._coarse.state_dict(),
            "too_coarse": self._too_coarse,
            "frozen": self._frozen.state_dict(),
            "nothing": self._nothing.state_dict(),
            "again": self._again.state_dict(),
            "last": self._last.state_dict(),
            **self._due.state_dict(),
            "standstill": self._standstill,
            "peak_lr": self._peak_lr,
            "latest_lr": self._latest_lr,
            "counted": self._counted,
            "counts": self._counts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._still.load_state_dict(state["still"])
        self._coarse.load_state_dict(state["coarse"])
        self._too_coarse = state["too_coarse"]
        self._frozen.load_state_dict(state["frozen"])
        self._nothing.load_state_dict(state["nothing"])
        self._again.load_state_dict(state["again"])
        self._last.load_state_dict(state["last"])
        self._due.load_state_dict(state)
        self._standstill = state["standstill"]
        self._peak_lr, self._latest_lr = state["peak_lr"], state["latest_lr"]
        self._counted, self._counts = state["counted"], state["counts"]


def _at_rest(facts: ParameterFacts) -> set[str]:
    """Names of the parameters whose group has a learning rate of 0."""
    if facts.resting is None:
        return set()
    return {name for name, rests in zip(facts.names, facts.resting, strict=True) if rests}


def _matrices(facts: ParameterFacts) -> set[str]:
    """Names of the parameters that are not small beside the rest of their layer, nor beside the widest of the model (a
    last norm is all there is of its layer)."""
    largest: dict[str, int] = {}
    for group, size in zip(facts.groups, facts.sizes, strict=True):
        largest[group] = max(largest.get(group, 0), size)
    least = sqrt(max(facts.sizes, default=0))
    rows = zip(facts.names, facts.groups, facts.sizes, strict=True)
    return {name for name, group, size in rows if size >= max(VECTOR_SHARE * largest[group], least)}
