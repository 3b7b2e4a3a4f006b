"""weight_jump: weights changed by more than the optimizer's update explains (corruption, a bad reload)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.absence import Facts
from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.detectors.norm_changes import NormChanges
from minigpt.training_monitor.detectors.update_leaps import UpdateLeaps
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class WeightJumpConfig:
    """When a change of weights is called weight_jump."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    explained_ratio: float = 1.5
    """A weight norm may change by this many times the update's norm: 1, and what estimating it from a sample takes."""
    slack: float = 1e-3
    """And by this fraction of itself."""
    leap_ratio: float = 20.0
    """An update this many times its parameter's own normal, with learning rate and gradient as they were, is not the
    optimizer's."""
    min_history: int = 8
    """Updates before a parameter has a normal."""
    close_steps: int = 8
    """Steps after which a jump, which happens once, is over."""

    def __post_init__(self) -> None:
        rule = "weight_jump"
        require(self.explained_ratio >= 1, f"{rule}.explained_ratio", self.explained_ratio, ">= 1")
        require(self.slack > 0, f"{rule}.slack", self.slack, "> 0")
        require(self.leap_ratio > 1, f"{rule}.leap_ratio", self.leap_ratio, "> 1")
        require(self.min_history >= 2, f"{rule}.min_history", self.min_history, ">= 2")
        require(self.close_steps >= 1, f"{rule}.close_steps", self.close_steps, ">= 1")


STEADY = 1.5
"""The learning rate is as it was within this factor."""
SHOWN = 5


class WeightJump:
    """For each parameter (or layer group): |change of ||W||| against the update, and the update against its own past.

    An update that the learning rate or the gradient explains is no jump; neither is an overflowing or skipped step.
    """

    def __init__(self, config: WeightJumpConfig) -> None:
        self._config = config
        self._incident = Incident("weight_jump")
        self._last = LastStep()
        self._lr_before = 0.0
        self._names: tuple[str, ...] = ()
        self._groups: tuple[str, ...] = ()
        self._grads: Sequence[float | None] = ()
        self._clear()

    def _clear(self) -> None:
        """Nothing is known of any parameter."""
        size = len(self._names)
        self._leaps = UpdateLeaps(size, self._config.leap_ratio, self._config.min_history)
        self._norms = NormChanges(self._config.explained_ratio, self._config.slack)

    def observe(self, signals: StepSignals) -> list[Finding]:
        weights, updates, grads = self._take_rows(signals)
        evidence: Facts = {}
        if updates is not None and self._last.is_just_before(signals.step):
            evidence = self._judge(weights, updates, signals)
        elif updates is not None and weights is not None:
            self._forget_last()
            self._norms.take(weights, self._leaps.normal, self._leaps.accepted)
        else:
            self._forget_last()
        self._grads = grads if grads is not None else ()
        self._lr_before = self._last.lr
        self._last.take(signals)
        if evidence:
            return self._incident.bad(signals.step, evidence) + self._incident.sustain(signals.step, evidence)
        return self._incident.good(signals.step, self._config.close_steps, {})

    def _forget_last(self) -> None:
        self._leaps.forget_open()
        self._norms.forget_last()

    def _judge(
        self, weights: Sequence[float] | None, updates: Sequence[float], signals: StepSignals
    ) -> Facts:
        """Evidence of a jump, as far as this step shows it; the normals follow."""
        self._norms.move(updates)
        stretched: Sequence[int] = ()
        if weights is not None:
            stretched = self._norms.take(weights, self._leaps.normal, self._leaps.accepted)
        leaps: Mapping[int, float] = {}
        if signals.finite and self._last.finite and not self._last.skipped:
            leaps = self._leaps.take(updates, self._grads, steady=self._steady(signals.lr))
        if not stretched and not leaps:
            return {}  # nearly always
        return self._evidence({i: updates[i] for i in stretched} | {**leaps}, signals)

    def _steady(self, lr: float) -> bool:
        """Whether the learning rate is as it was; a rate of 0 says nothing."""
        if lr == self._last.lr == self._lr_before:
            return True
        rates = [rate for rate in (lr, self._last.lr, self._lr_before) if rate > 0.0]
        return not rates or max(rates) <= STEADY * min(rates)

    def _take_rows(
        self, signals: StepSignals
    ) -> tuple[Sequence[float] | None, Sequence[float] | None, Sequence[float | None] | None]:
        """(weight norms, update norms, gradient norms): of the parameters where they are known, else of the groups."""
        parameters = signals.parameters
        if parameters is not None and parameters.update_norms is not None:
            self._follow(parameters.facts.names, parameters.facts.groups)
            return parameters.weight_norms, parameters.update_norms, parameters.grad_norms
        if parameters is not None or not signals.update_ratios or not signals.weight_norms:
            return None, None, None
        names = tuple(signals.update_ratios)
        self._follow(names, names)
        weights = [signals.weight_norms.get(name, 0.0) for name in names]
        ratios = signals.update_ratios.values()
        updates = [ratio * weight for ratio, weight in zip(ratios, weights, strict=True)]
        return weights, updates, [signals.group_norms.get(name) for name in names]

    def _follow(self, names: tuple[str, ...], groups: tuple[str, ...]) -> None:
        if names is not self._names and names != self._names:
            self._names, self._groups, self._grads = names, groups, ()
            self._clear()
        self._names, self._groups = names, groups

    def _evidence(self, jumped: Mapping[int, float], signals: StepSignals) -> Facts:
        found, normal = sorted(jumped), self._leaps.normal
        ratios = {i: jumped[i] / normal[i] if normal[i] > 0.0 else 0.0 for i in found}
        worst = max(found, key=ratios.__getitem__)
        names = [self._names[i] for i in found[:SHOWN]] + (["..."] if len(found) > SHOWN else [])
        return {
            "group": self._groups[worst],
            "parameter": self._names[worst],
            "parameters": ", ".join(names),
            "count": len(found),
            "of": len(self._names),
            "value": jumped[worst],
            "normal": normal[worst],
            "ratio": ratios[worst],
            "lr": self._last.lr,
            "loss": signals.loss,
        }

    def rebase(self) -> None:
        """Other weights, other updates: all is learnt anew."""
        self._clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "last": self._last.state_dict(),
            "lr_before": self._lr_before,
            "names": list(self._names),
            "groups": list(self._groups),
            "grads": list(self._grads),
            "leaps": self._leaps.state_dict(),
            "norms": self._norms.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._last.load_state_dict(state["last"])
        self._lr_before = state["lr_before"]
        self._names, self._groups = tuple(state["names"]), tuple(state["groups"])
        self._grads = list(state["grads"])
        self._clear()
        self._leaps.load_state_dict(state["leaps"])
        self._norms.load_state_dict(state["norms"])
