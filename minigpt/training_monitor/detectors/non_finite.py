"""nan_loss and non_finite_gradient: NaN or infinity, and where it most likely began."""

from math import isfinite
from typing import Any

from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.overflow import NonFiniteConfig
from minigpt.training_monitor.signals import StepSignals

Found = dict[str, float | int | str | bool]


CALIBRATION_STEPS = 30
"""Steps in which a scaler finds its first scale: it halves at each."""


class NonFinite:
    """Speaks at the first non-finite value (an exact test needs no tuning), again when it lasts.

    One incident, one cause: while the loss is not finite, its gradients are a consequence. A gradient that
    overflowed under a GradScaler is the scaler's business (overflow_streak), as long as the loss is finite.
    """

    def __init__(self, config: NonFiniteConfig) -> None:
        self._config = config
        self._loss = Incident("nan_loss")
        self._gradient = Incident("non_finite_gradient")
        self._seen_finite = False
        self._guarded = False  # somebody (a scaler nobody told of) leaves out the updates of such gradients

    def observe(self, signals: StepSignals) -> list[Finding]:
        bad_loss = not isfinite(signals.loss)
        bad_gradient = not isfinite(signals.grad_norm) and not bad_loss and not signals.scaler_overflow
        self._seen_finite |= isfinite(signals.grad_norm)
        if self._gradient.last_bad_at == signals.step - 1 > 0 and signals.parameters is not None:
            updates = signals.parameters.update_norms
            self._guarded = updates is not None and not any(updates)
        if not bad_loss and not bad_gradient and not (self._loss.is_open or self._gradient.is_open):
            return []
        findings: list[Finding] = []
        for incident, bad in ((self._loss, bad_loss), (self._gradient, bad_gradient)):
            if bad:
                calibrates = incident is self._gradient and self._may_calibrate(signals)
                harmless = incident is self._gradient and (calibrates or self._guarded)
                findings += self._unusual(incident, signals, calibrates=calibrates, harmless=harmless)
            elif signals.finite:
                findings += incident.good(signals.step, self._config.close_steps, _evidence(signals))
        return findings

    def _may_calibrate(self, signals: StepSignals) -> bool:
        """Whether this is what a gradient scaler that nobody told of does first: from the start all gradients overflow,
        the loss is finite, and no weight has moved."""
        if self._seen_finite or signals.step > CALIBRATION_STEPS or signals.parameters is None:
            return False
        return not any(signals.parameters.update_norms or ())

    def _unusual(
        self, incident: Incident, signals: StepSignals, *, calibrates: bool, harmless: bool
    ) -> list[Finding]:
        evidence = _evidence(signals)
        findings = incident.bad(signals.step, evidence, interrupts=not harmless)
        if incident.bad_count >= self._config.persist_steps and not calibrates:
            findings += incident.sustain(signals.step, evidence)
        return findings

    def rebase(self) -> None:
        """NaN is never normal: nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        return {
            "loss": self._loss.state_dict(),
            "gradient": self._gradient.state_dict(),
            "seen_finite": self._seen_finite,
            "guarded": self._guarded,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loss.load_state_dict(state["loss"])
        self._gradient.load_state_dict(state["gradient"])
        self._seen_finite = state["seen_finite"]
        self._guarded = state["guarded"]


def _evidence(signals: StepSignals) -> Found:
    """What was seen at this step, and where it began, as far as that can be told."""
    evidence: Found = {
        "loss": signals.loss,
        "grad_norm": signals.grad_norm,
        "update_skipped": signals.update_skipped,
        "epoch": signals.epoch,
        "position": signals.position,
    }
    if signals.scaler_scale is not None:
        evidence["scaler_scale"] = signals.scaler_scale
    if signals.look is not None and signals.look.first_non_finite is not None:
        evidence["module"] = signals.look.first_non_finite
    return evidence | (
        _bad_weights(signals) or ({} if not isfinite(signals.loss) else _bad_gradients(signals))
    )


def _bad_weights(signals: StepSignals) -> Found:
    """The first parameter, or else layer, whose weights are not finite: everything after it is a consequence."""
    parameters = signals.parameters
    if parameters is not None and parameters.weight_norms is not None:
        bad = [i for i, norm in enumerate(parameters.weight_norms) if not isfinite(norm)]
        if bad:
            facts = parameters.facts
            found: Found = {"group": facts.groups[bad[0]], "parameter": facts.names[bad[0]]}
            return found | {"count": len(bad), "of": len(facts), "trigger": "weights"}
    group = next((name for name, norm in signals.weight_norms.items() if not isfinite(norm)), None)
    return {} if group is None else {"group": group, "trigger": "weights"}


def _bad_gradients(signals: StepSignals) -> Found:
    """The last parameter, or else layer, in model order: backward runs from the output, and spoils all below.

    Of a loss that is not finite every gradient is spoilt, so that they tell nothing.
    """
    parameters = signals.parameters
    if parameters is not None:
        rows = enumerate(parameters.grad_norms)
        bad = [i for i, norm in rows if norm is not None and not isfinite(norm)]
        if bad:
            facts = parameters.facts
            found: Found = {"group": facts.groups[bad[-1]], "parameter": facts.names[bad[-1]]}
            return found | {"count": len(bad), "of": len(facts), "trigger": "gradients"}
    bad_groups = [name for name, norm in signals.group_norms.items() if not isfinite(norm)]
    return {"group": bad_groups[-1], "trigger": "gradients"} if bad_groups else {}
