"""dead_layer: a layer's gradient is exactly zero, or has all but left the total, while the others go on."""

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import Absence, Facts, named, out_of_place, without_experts
from minigpt.training_monitor.detectors.layer_shares import LayerShares
from minigpt.training_monitor.detectors.matrix_shares import MatrixShares
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterSignals
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class DeadLayerConfig:
    """When a parameter or a layer is called a dead_layer."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    persist_steps: int = 4
    """Steps in a row with an exactly zero gradient, or with a share too low."""
    first_steps: int = 6
    """The same for a gradient that was never anything else: a layer that starts at zero hides those below it."""
    share_ratio: float = 1 / 300
    """A layer's share of the gradient norm below this fraction of its own normal share is too low; a single
    matrix's, if it falls at once."""
    fall_ratio: float = 1 / 30
    """And its norm below this fraction of its own normal norm: a share also falls when another layer explodes."""
    min_history: int = 12
    """Accepted steps before a layer has a normal share."""
    close_steps: int = 8
    """Normal steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        for name in ("persist_steps", "first_steps", "min_history", "close_steps"):
            require(getattr(self, name) >= 1, f"dead_layer.{name}", getattr(self, name), ">= 1")
        for name in ("share_ratio", "fall_ratio"):
            require(0 < getattr(self, name) < 1, f"dead_layer.{name}", getattr(self, name), "between 0 and 1")


class DeadLayer:
    """Two tests: an exact zero of single parameters, and the share of a layer or a matrix against its own history.

    Silent while everything is zero at once (that is a vanished gradient or a loss without targets, not a layer).
    """

    def __init__(self, config: DeadLayerConfig, warmup_steps: int = 0) -> None:
        self._config = config
        self._zeros = Absence(config.persist_steps)
        self._shares = LayerShares(config.share_ratio, config.fall_ratio, config.min_history, warmup_steps)
        self._matrices = MatrixShares(config.share_ratio, config.fall_ratio, warmup_steps)
        self._low: dict[str, int] = {}
        self._incident = Incident("dead_layer")

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not isfinite(signals.grad_norm) or signals.grad_norm == 0.0:
            return []
        step = signals.step
        faded = self._faded(signals)
        doubted, dead = self._zero_parameters(signals.parameters) if signals.parameters else ({}, {})
        parameters = signals.parameters
        lost = self._matrices.lost(parameters, signals.grad_norm, step) if parameters else []
        if not doubted and not faded and not lost:
            return self._incident.good(step, self._config.close_steps, {})
        lasting = bool(dead or lost) or any(self._low[name] >= self._config.persist_steps for name in faded)
        evidence: Facts = dead or doubted or self._faded_evidence(faded, lost, signals)
        findings = self._incident.bad(step, evidence)
        return findings + (self._incident.sustain(step, evidence) if lasting else [])

    def _zero_parameters(self, parameters: ParameterSignals) -> tuple[Facts, Facts]:
        """(evidence of parameters at zero that were not before, evidence of those that stay there)."""
        facts, norms = parameters.facts, parameters.grad_norms
        absence = self._zeros
        if facts.all_trainable and all(norms):  # neither 0 nor None
            absence.note_all_present(facts.names)
        else:
            judged = zip(norms, facts.trainable, strict=True)
            zeros = [None if norm is None or not trains else norm == 0.0 for norm, trains in judged]
            absence.note(facts.names, zeros)
        if not absence.any_absent:
            return {}, {}
        never = out_of_place(facts, set(absence.never(self._config.first_steps)), absence.present)
        dead = without_experts(facts, {*absence.overdue(), *never})
        shown = dead or without_experts(facts, absence.gone())
        if not shown:
            return {}, {}
        evidence: Facts = {**named(facts, shown), "value": 0.0}
        return evidence, evidence if dead else {}

    def _faded(self, signals: StepSignals) -> list[str]:
        """Layers whose share and norm are far below their own normal."""
        faded = self._shares.low(signals.group_norms, signals.grad_norm, signals.step)
        if faded or self._low:
            self._low = {name: self._low.get(name, 0) + 1 for name in faded}
        return faded

    def _faded_evidence(self, faded: list[str], lost: list[str], signals: StepSignals) -> Facts:
        """What is known of the faded layer nearest the output, or of the lost matrices."""
        if not faded:
            parameters = signals.parameters
            assert parameters is not None
            evidence = named(parameters.facts, lost)
            place = parameters.facts.names.index(str(evidence["parameter"]))
            share = (parameters.grad_norms[place] or 0.0) / signals.grad_norm
            normal = self._matrices.normal(str(evidence["parameter"]))
            return {**evidence, "value": share, "normal": normal, "group_ratio": share / normal}
        group = faded[-1]
        share, normal = signals.group_norms[group] / signals.grad_norm, self._shares.normal(group)
        return {"group": group, "value": share, "normal": normal, "group_ratio": share / normal}

    def rebase(self) -> None:
        """Zeros of now are meant to be; shares are learnt anew."""
        self._zeros.rebase()
        self._shares.clear()
        self._matrices.clear()
        self._low.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "zeros": self._zeros.state_dict(),
            "shares": self._shares.state_dict(),
            "matrices": self._matrices.state_dict(),
            "low": dict(self._low),
            "incident": self._incident.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._zeros.load_state_dict(state["zeros"])
        self._shares.load_state_dict(state["shares"])
        self._matrices.load_state_dict(state["matrices"])
        self._low = dict(state["low"])
        self._incident.load_state_dict(state["incident"])
