"""missing_gradient: a trainable parameter gets no gradient at all, from the start or since a step."""

from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import (
    Absence,
    Facts,
    kind,
    named,
    out_of_place,
    without_experts,
)
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class MissingGradientConfig:
    """When a parameter without a gradient is called missing_gradient."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    persist_steps: int = 3
    """Steps in a row without a gradient; more for parameters that used to come and go (experts, dropped layers)."""
    first_steps: int = 3
    """Steps after which a parameter that never had a gradient, though its like in other layers has, is missing."""
    close_steps: int = 3
    """Steps with all gradients that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in ("persist_steps", "first_steps", "close_steps"):
            require(getattr(self, name) >= 1, f"missing_gradient.{name}", getattr(self, name), ">= 1")


LONG = 6
"""Times first_steps that a parameter without its like elsewhere may wait for a first gradient."""


class MissingGradient:
    """The set of trainable parameters with a gradient never shrinks.

    Silent: frozen from the start, unfreezing, unused heads, copies that no optimizer has, experts that come and go.
    A parameter whose requires_grad is switched off during the run counts, unless the change was declared.
    Without per-parameter signals it watches the layer groups.
    """

    def __init__(self, config: MissingGradientConfig) -> None:
        self._config = config
        self._parameters = Absence(config.persist_steps, late_start=True)
        self._groups = Absence(config.persist_steps)
        self._known_groups: dict[str, None] = {}
        self._incident = Incident("missing_gradient")

    def observe(self, signals: StepSignals) -> list[Finding]:
        if signals.parameters is not None:
            return self._judge_parameters(signals.step, signals.parameters)
        if signals.group_norms:
            return self._judge_groups(signals)
        return []

    def _judge_parameters(self, step: int, parameters: ParameterSignals) -> list[Finding]:
        facts, absence = parameters.facts, self._parameters
        norms = parameters.grad_norms
        if facts.all_trainable and (
            all(norms) or None not in norms
        ):  # nearly always: all() is by far the quicker
            absence.note_all_present(facts.names)
        else:
            absence.note(facts.names, self._absent(parameters))
        if not absence.any_absent:
            return self._incident.good(step, self._config.close_steps, {})
        never = absence.never(self._config.first_steps)
        if never and absence.present:
            never = [*out_of_place(facts, set(never), absence.present), *self._unused_within(facts)]
        lost = without_experts(facts, {*absence.overdue(), *never})
        shown = lost or without_experts(facts, absence.gone())
        if not shown:
            return self._incident.good(step, self._config.close_steps, {})
        evidence = named(facts, shown)
        evidence["since"] = step - max(absence.row(name) for name in shown) + 1
        frozen = {name for name, trainable in zip(facts.names, facts.trainable, strict=True) if not trainable}
        evidence["trainable"] = not shown <= frozen
        return self._unusual(step, evidence, lasting=bool(lost))

    def _unused_within(self, facts: ParameterFacts) -> list[str]:
        """Parameters of a layer in use that have had no gradient for long, though an optimizer waits for it."""
        never = set(self._parameters.never(LONG * self._config.first_steps))
        if facts.optimized is None or not never:
            return []
        used = {group for name, group in zip(facts.names, facts.groups, strict=True) if name not in never}
        rows = zip(facts.names, facts.groups, facts.optimized, strict=True)
        # Only of numbered layers: a part of the model beside them (a head, a mask token) may have no use here.
        return [
            n for n, group, optimized in rows if n in never and optimized and group in used & _layers(facts)
        ]

    def _absent(self, parameters: ParameterSignals) -> list[bool | None]:
        facts = parameters.facts
        absent: list[bool | None] = []
        for i, (norm, trainable) in enumerate(zip(parameters.grad_norms, facts.trainable, strict=True)):
            if not trainable:
                # Frozen now: worth a word only if it used to train.
                absent.append(True if facts.names[i] in self._parameters.present else None)
            elif norm is not None:
                absent.append(False)
            else:
                left_out = facts.optimized is not None and not facts.optimized[i]
                unused_copy = left_out and facts.names[i] not in self._parameters.present
                absent.append(None if unused_copy else True)
        return absent

    def _judge_groups(self, signals: StepSignals) -> list[Finding]:
        if self._known_groups.keys() != signals.group_norms.keys():
            self._known_groups.update(dict.fromkeys(signals.group_norms))
        names = tuple(self._known_groups)
        self._groups.note(names, [name not in signals.group_norms for name in names])
        gone, lost = self._groups.gone(), self._groups.overdue()
        if not gone:
            return self._incident.good(signals.step, self._config.close_steps, {})
        shown = [name for name in names if name in (lost or gone)]
        evidence: Facts = {"group": shown[-1], "count": len(shown), "of": len(names)}
        return self._unusual(signals.step, evidence, lasting=bool(lost))

    def _unusual(self, step: int, evidence: Facts, *, lasting: bool) -> list[Finding]:
        findings = self._incident.bad(step, evidence)
        return findings + (self._incident.sustain(step, evidence) if lasting else [])

    def rebase(self) -> None:
        """What has no gradient now is meant to have none."""
        self._parameters.rebase()
        self._groups.rebase()

    def state_dict(self) -> dict[str, Any]:
        return {
            "parameters": self._parameters.state_dict(),
            "groups": self._groups.state_dict(),
            "known_groups": list(self._known_groups),
            "incident": self._incident.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._parameters.load_state_dict(state["parameters"])
        self._groups.load_state_dict(state["groups"])
        self._known_groups = dict.fromkeys(state["known_groups"])
        self._incident.load_state_dict(state["incident"])


def _layers(facts: ParameterFacts) -> set[str]:
    """The groups that are numbered layers."""
    return {group for group in facts.groups if kind(group) != group}
