"""nan_loss and non_finite_gradient: NaN or infinity, told apart from an fp16 scaler's ordinary overflow."""

from math import isfinite
from typing import Any

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.overflow import NonFiniteConfig, OverflowJudge
from minigpt.training_monitor.signals import StepSignals


class NonFinite:
    """Speaks at the first non-finite value (an exact test needs no tuning), again when it lasts.

    One incident, one cause: while the loss is not finite, its gradients are a consequence.
    """

    def __init__(self, config: NonFiniteConfig) -> None:
        self._config = config
        self._overflow = OverflowJudge(config)
        self._loss = Incident("nan_loss")
        self._gradient = Incident("non_finite_gradient")

    def observe(self, signals: StepSignals) -> list[Finding]:
        calibrating = self._overflow.is_normal(signals)
        bad_loss = not isfinite(signals.loss)
        bad_gradient = not isfinite(signals.grad_norm) and not bad_loss and not calibrating
        findings: list[Finding] = []
        for incident, bad in ((self._loss, bad_loss), (self._gradient, bad_gradient)):
            if bad:
                findings += self._unusual(incident, signals)
            elif signals.finite:
                findings += incident.good(signals.step, self._config.close_steps, _evidence(signals))
        return findings

    def _unusual(self, incident: Incident, signals: StepSignals) -> list[Finding]:
        evidence = _evidence(signals)
        if signals.scaler_overflow:
            evidence["overflows_in_a_row"] = self._overflow.in_a_row
        findings = incident.bad(signals.step, evidence, interrupts=True)
        if incident.bad_count >= self._config.persist_steps:
            findings += incident.sustain(signals.step, evidence)
        return findings

    def rebase(self) -> None:
        """NaN is never normal: nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "overflow": self._overflow.state_dict(),
            "loss": self._loss.state_dict(),
            "gradient": self._gradient.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._overflow.load_state_dict(state["overflow"])
        self._loss.load_state_dict(state["loss"])
        self._gradient.load_state_dict(state["gradient"])


def _evidence(signals: StepSignals) -> dict[str, float | int | str | bool]:
    """What was seen at this step; the group is named only when something in it is not finite."""
    evidence: dict[str, float | int | str | bool] = {
        "loss": signals.loss,
        "grad_norm": signals.grad_norm,
        "update_skipped": signals.update_skipped,
        "epoch": signals.epoch,
        "position": signals.position,
    }
    group = signals.first_non_finite_group()
    if group is not None:
        evidence["group"] = group
    if signals.scaler_scale is not None:
        evidence["scaler_scale"] = signals.scaler_scale
    return evidence
