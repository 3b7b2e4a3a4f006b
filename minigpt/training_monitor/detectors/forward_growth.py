"""attention_logit_growth, activation_growth, output_logit_growth, dead_units: what closer looks at the forward show."""

from collections import deque
from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.forward_growth_config import ForwardGrowthConfig
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.look import Look
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


class Case(NamedTuple):
    """What is wrong at one look: where, how much, and after how many looks it deserves attention."""

    group: str
    value: float
    anchor: float | None
    threshold: float
    looks: int
    grows: bool
    """Interrupts only while it grows from look to look."""


OUTPUT = "output"
FAR_OUT = 8.0
"""Times its threshold, a number need not grow on."""
LEARNS = 0.2
"""Activations that grow while the loss has come down by this fraction since the anchor are learning's ..."""
LEARNT_GROWTH = 3.0
"""... up to this many times the threshold."""
RISING_LR = 1.2
"""A learning rate this many times that of the anchor's first look was still warming up when it was taken."""
UNTRAINED_STEPS = 40
"""Before this step most numbers still grow on their own."""


class ForwardGrowth:
    """Each number against its own anchor and an absolute bound; an attention logit far out needs no anchor."""

    def __init__(self, config: ForwardGrowthConfig, facts: RunFacts) -> None:
        self._config = config
        self._warm_at = facts.warmup_steps
        self._rules = {
            "attention_logit_growth": self._attention,
            "activation_growth": self._activation,
            "output_logit_growth": self._output,
            "dead_units": self._dead_units,
        }
        self._incidents = {name: Incident(name) for name in self._rules}
        self._in_a_row = dict.fromkeys(self._rules, 0)
        self._before = dict.fromkeys(self._rules, 0.0)
        self._early: dict[str, list[float]] = {}  # the looks that an anchor will be taken from
        self._early_at = 0  # step of the first of them
        self._anchors: dict[str, float] = {}
        self._anchor_lr = 0.0  # the highest learning rate until then
        self._head = ""  # the last layer of the model
        self._losses: deque[float] = deque(maxlen=16)
        self._anchor_loss: float | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        if isfinite(signals.loss):
            self._losses.append(signals.loss)
        if signals.look is None:
            return []
        findings = []
        if signals.parameters is not None and signals.parameters.facts.groups:
            self._head = signals.parameters.facts.groups[-1]
        for name, rule in self._rules.items():
            findings += self._judge(name, rule(signals.look), signals)
        if signals.step >= self._warm_at and not any(self._in_a_row.values()):
            if signals.lr > RISING_LR * self._anchor_lr > 0.0:
                self.rebase()  # a warm-up that nobody told of
            self._anchor_lr = max(self._anchor_lr, signals.lr)
            self._early_at = self._early_at if self._early else signals.step
            self._take_anchors(signals.look)
        return findings

    def _judge(self, name: str, case: Case | None, signals: StepSignals) -> list[Finding]:
        incident, step = self._incidents[name], signals.step
        if case is None:
            self._in_a_row[name], self._before[name] = 0, 0.0
            return incident.good(step, self._config.close_looks, {})
        self._in_a_row[name] += 1
        grows = case.value > self._before[name]
        self._before[name] = case.value
        evidence: dict[str, float | int | str] = {
            "value": case.value,
            "group": case.group,
            "threshold": case.threshold,
        }
        if case.anchor is not None:
            evidence["normal"] = case.anchor
            if case.anchor > 0:
                evidence["ratio"] = case.value / case.anchor
        findings = incident.bad(step, evidence)
        grows = grows or case.value > FAR_OUT * case.threshold
        lasts = self._in_a_row[name] >= case.looks and (grows or not case.grows)
        if name == "activation_growth" and case.value < LEARNT_GROWTH * case.threshold:
            lasts = lasts and not self._learns()
        if lasts and step >= self._config.first_step:
            findings += incident.sustain(step, evidence)
        return findings

    def _learns(self) -> bool:
        if self._anchor_loss is None or not self._losses:
            return False
        return median(self._losses) < self._anchor_loss - LEARNS * abs(self._anchor_loss)

    def _attention(self, look: Look) -> Case | None:
        config = self._config
        group, value = _largest(look.attention_logit_max)
        if value > config.attention_logit_max:
            return Case(
                group,
                value,
                self._anchor("attention", group),
                config.attention_logit_max,
                config.persist_looks + 3,
                False,
            )
        worst: Case | None = None
        for group, value in _finite(look.attention_logit_max).items():
            anchor = self._anchor("attention", group)
            if anchor is not None and value > max(
                config.attention_logit_large, config.attention_logit_growth * anchor
            ):
                case = Case(group, value, anchor, config.attention_logit_large, config.persist_looks, True)
                worst = case if worst is None or case.value > worst.value else worst
        return worst

    def _activation(self, look: Look) -> Case | None:
        worst: Case | None = None
        for group, value in _finite(look.activation_rms).items():
            anchor = self._anchor("activation", group)
            if group == self._head:
                continue  # the outputs begin near zero and grow to the size of their targets
            if anchor is not None and anchor > 0 and value > self._config.activation_growth * anchor:
                case = Case(
                    group,
                    value,
                    anchor,
                    self._config.activation_growth * anchor,
                    self._config.persist_looks,
                    True,
                )
                worst = worst or case  # the first block in model order is where it begins
        return worst

    def _output(self, look: Look) -> Case | None:
        config = self._config
        for name, value in (("logits", look.output_logit_rms), ("partition", look.log_partition)):
            anchor = self._anchor(OUTPUT, name)
            if value is None or anchor is None or not isfinite(value):
                continue
            if abs(value) > max(config.output_logit_rms, config.output_logit_growth * abs(anchor)):
                return Case(
                    OUTPUT, abs(value), abs(anchor), config.output_logit_rms, config.persist_looks, True
                )
        return None

    def _dead_units(self, look: Look) -> Case | None:
        worst: Case | None = None
        for group, value in _finite(look.dead_unit_fraction).items():
            anchor = self._anchor("dead", group)
            if anchor is not None and value > anchor + self._config.dead_unit_rise:
                threshold = anchor + self._config.dead_unit_rise
                worst = worst or Case(group, value, anchor, threshold, self._config.persist_looks, False)
        return worst

    def _anchor(self, kind: str, group: str) -> float | None:
        """The anchor, or the first look that it will be taken from, if that was not of an untrained model."""
        key = f"{kind} {group}"
        first = self._early.get(key) if self._early_at >= UNTRAINED_STEPS else None
        return self._anchors.get(key, first[0] if first else None)

    def _take_anchors(self, look: Look) -> None:
        if self._anchor_loss is None and self._losses:
            self._anchor_loss = median(self._losses)
        numbers: list[tuple[str, Mapping[str, float]]] = [
            ("attention", look.attention_logit_max),
            ("activation", look.activation_rms),
            ("dead", look.dead_unit_fraction),
            (OUTPUT, {"logits": look.output_logit_rms or 0.0, "partition": look.log_partition or 0.0}),
        ]
        for kind, values in numbers:
            for group, value in values.items():
                key = f"{kind} {group}"
                if key in self._anchors or not isfinite(value):
                    continue
                seen = self._early.setdefault(key, [])
                seen.append(value)
                if len(seen) >= self._config.anchor_looks:
                    self._anchors[key] = median(self._early.pop(key))

    def rebase(self) -> None:
        self._anchor_loss = None
        self._anchors.clear()
        self._early.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incidents": {name: incident.state_dict() for name, incident in self._incidents.items()},
            "in_a_row": dict(self._in_a_row),
            "before": dict(self._before),
            "early": {key: list(values) for key, values in self._early.items()},
            "early_at": self._early_at,
            "anchors": dict(self._anchors),
            "anchor_lr": self._anchor_lr,
            "head": self._head,
            "losses": list(self._losses),
            "anchor_loss": self._anchor_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, incident in self._incidents.items():
            incident.load_state_dict(state["incidents"][name])
        self._in_a_row = dict(state["in_a_row"])
        self._before = dict(state["before"])
        self._early = {key: list(values) for key, values in state["early"].items()}
        self._early_at = state["early_at"]
        self._anchors = dict(state["anchors"])
        self._anchor_lr, self._head = state["anchor_lr"], state["head"]
        self._losses = deque(state["losses"], maxlen=self._losses.maxlen)
        self._anchor_loss = state["anchor_loss"]


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without the groups whose number is NaN or infinite: those are nan_loss's business."""
    return {group: value for group, value in values.items() if isfinite(value)}


def _largest(values: Mapping[str, float]) -> tuple[str, float]:
    """Group and number of the largest finite number; ("", 0.0) without any."""
    finite = _finite(values)
    group = max(finite, key=finite.__getitem__, default="")
    return group, finite.get(group, 0.0)
