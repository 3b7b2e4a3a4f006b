"""gradient_exploding: the gradient norm leaps far above its own normal and stays there."""

from typing import Any

from minigpt.training_monitor.detectors.spike import ExplodingConfig, SpikeRule
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.group_baselines import GroupBaselines
from minigpt.training_monitor.signals import StepSignals


class GradientExploding:
    """A spike of the gradient norm; names the layer group that rose furthest above its own normal."""

    def __init__(self, config: ExplodingConfig) -> None:
        self._rule = SpikeRule("gradient_exploding", config, guard_below=True)
        self._groups = GroupBaselines()

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not signals.finite:
            return []
        findings = self._rule.observe(signals.step, signals.grad_norm)
        if not self._rule.incident.is_open and not findings:
            self._groups.accept(signals)
            return findings
        return [self._with_group(finding, signals) for finding in findings]

    def _with_group(self, finding: Finding, signals: StepSignals) -> Finding:
        blamed = self._groups.most_changed(signals, upwards=True)
        evidence = {**finding.evidence, **blamed, "loss": signals.loss}
        return Finding(
            finding.name,
            finding.status,
            finding.opened_at,
            finding.step,
            finding.length,
            finding.interrupts,
            evidence,
        )

    def rebase(self) -> None:
        self._rule.rebase()

    def state_dict(self) -> dict[str, Any]:
        return {"rule": self._rule.state_dict(), "groups": self._groups.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rule.load_state_dict(state["rule"])
        self._groups.load_state_dict(state["groups"])
