"""Gradients so small that Adam's eps rules their updates: below it Adam is no longer scale-free."""

from math import sqrt
from typing import Any

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.parameter_signals import ParameterFacts
from minigpt.training_monitor.signals import StepSignals

MAJORITY = 0.5
"""Share of the model's matrices that must be faint: single ones are dead_layer's."""
LEARNT_BY_HEART = 0.05
"""A loss below this fraction of the first one leaves no gradients in a healthy run either."""


class FaintGradients:
    """RMS of each gradient against `ratio` x eps (Wortsman et al., arXiv 2309.14322, 3.4): an absolute test that
    knows the run's scale. Exactly zero gradients are other rules' business.
    """

    def __init__(self, ratio: float, steps: int, adam_eps: float | None) -> None:
        self._threshold = None if adam_eps is None else ratio * adam_eps
        self._steps = steps
        self._incident = Incident("gradient_vanishing")
        self._facts: ParameterFacts | None = None
        self._limits: list[float] = []
        self._since: int | None = None
        self._first_loss: float | None = None

    def observe(self, signals: StepSignals, first_step: int) -> list[Finding]:
        parameters = signals.parameters
        if self._threshold is None or parameters is None or not signals.finite:
            return []
        if self._first_loss is None:
            self._first_loss = signals.loss
        limits = self._limits_of(parameters.facts)
        norms = parameters.grad_norms
        # Cheap first: no model of this size can be faint with such a norm.
        if signals.grad_norm > limits[-1] or signals.loss < LEARNT_BY_HEART * self._first_loss:
            return self._fine(signals)
        faint = [index for index, norm in enumerate(norms) if norm is not None and 0 < norm < limits[index]]
        total = sum(norm is not None and norm > 0 for norm in norms)
        if not faint or len(faint) < MAJORITY * total:
            return self._fine(signals)
        self._since = self._since or signals.step
        if signals.step - self._since + 1 < self._steps:
            return []
        evidence = _evidence(signals, parameters.facts, faint, total, self._threshold)
        findings = self._incident.bad(signals.step, evidence)
        return findings + (
            self._incident.sustain(signals.step, evidence) if signals.step >= first_step else []
        )

    def _limits_of(self, facts: ParameterFacts) -> list[float]:
        """The faintest healthy norm of each parameter; last, one that no faint model's total can exceed."""
        if facts is not self._facts and self._threshold is not None:
            self._facts = facts
            self._limits = [self._threshold * sqrt(size) for size in facts.sizes]
            # Half of the parameters may be healthy, but not by much if all fade together.
            self._limits.append(100 * self._threshold * sqrt(sum(facts.sizes)))
        return self._limits

    def _fine(self, signals: StepSignals) -> list[Finding]:
        self._since = None
        if not self._incident.is_open:
            return []
        return self._incident.good(
            signals.step, self._steps, {"value": signals.grad_norm, "loss": signals.loss}
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "since": self._since,
            "first_loss": self._first_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._since = state["since"]
        self._first_loss = state["first_loss"]


def _evidence(
    signals: StepSignals, facts: ParameterFacts, faint: list[int], total: int, threshold: float
) -> dict[str, float | int | str]:
    assert signals.parameters is not None
    norms = signals.parameters.grad_norms
    return {
        "value": signals.grad_norm,
        "floor": threshold,
        "loss": signals.loss,
        "trigger": "eps",
        "rms": max((norms[index] or 0.0) / sqrt(facts.sizes[index]) for index in faint),
        "parameter": facts.names[faint[0]],
        "count": len(faint),
        "of": total,
    }
