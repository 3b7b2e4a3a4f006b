"""attention_logit_growth, activation_growth, output_logit_growth, dead_units: what closer looks at the forward show."""

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any, NamedTuple

from minigpt.training_monitor.detectors.forward_growth_config import ForwardGrowthConfig
from minigpt.training_monitor.detectors.look_anchors import OUTPUT, LookAnchors
from minigpt.training_monitor.detectors.loss_standing import LossStanding
from minigpt.training_monitor.detectors.unrest import Unrest
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
    looks: float
    """inf: it never does."""
    grows: bool
    """Only growth speaks against it: interrupts while it grows from look to look, and the training suffers."""


FAR_OUT = {
    "attention_logit_growth": 8.0,
    "activation_growth": 30.0,
    "output_logit_growth": 8.0,
    "dead_units": 8.0,
}
"""Times its threshold, a number need not grow on: a residual stream that is normed grows a hundredfold in healthy runs
(Muon)."""
LEARNS = 0.05
"""Numbers that grow while the loss has come down by this fraction since the anchor are learning's."""
LEARNT = 0.2
"""After the loss has come down by this fraction, what the activations have grown to is their new normal."""
SMALL = 0.1
"""An output that began below this fraction of the largest block's (a branch that starts near zero) counts as it."""
SUFFERS = 3.0
"""Gradient norms or updates this many times those of the anchor's time have left it."""
RISING_LR = 1.2
"""A learning rate this many times that of the anchor's first look was still warming up when it was taken."""


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
        self._saturated = 0  # looks in a row with an attention logit above the bound
        self._anchors = LookAnchors(config.anchor_looks)
        self._anchor_lr = 0.0  # the highest learning rate until then
        self._head = ""  # the last layer of the model
        self._loss = LossStanding()
        self._unrest = Unrest()
        self._anchor_loss: float | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        self._loss.note(signals.loss)
        self._unrest.note(signals)
        if signals.look is None:
            return []
        findings = []
        if signals.parameters is not None and signals.parameters.facts.groups:
            self._head = signals.parameters.facts.groups[-1]
        for name, rule in self._rules.items():
            findings += self._judge(name, rule(signals.look), signals)
        if signals.step >= self._warm_at and not any(self._in_a_row.values()):
            if self._learns(LEARNT):
                # The outputs of an untrained model are no measure any more.
                self._anchor_loss = None
                self._anchors.forget("activation")
            if signals.lr > RISING_LR * self._anchor_lr > 0.0:
                self.rebase()  # a warm-up that nobody told of
            self._anchor_lr = max(self._anchor_lr, signals.lr)
            if self._anchor_loss is None:
                self._anchor_loss = self._loss.level()
                self._unrest.settle()
            self._anchors.take(signals.step, signals.look)
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
        far_out = case.value > FAR_OUT[name] * case.threshold
        lasts = self._in_a_row[name] >= case.looks
        if case.grows and not far_out:
            lasts = lasts and grows and self._suffers()
        if lasts and step >= self._config.first_step:
            findings += incident.sustain(step, evidence)
        return findings

    def _suffers(self) -> bool:
        """Whether the training shows it: growth alone is also how a feature is learnt."""
        if self._loss.above_best():
            return True
        return not self._learns(LEARNS) and self._unrest.risen(SUFFERS)

    def _learns(self, fraction: float) -> bool:
        level, before = self._loss.level(), self._anchor_loss
        return level is not None and before is not None and level < before - fraction * abs(before)

    def _attention(self, look: Look) -> Case | None:
        config = self._config
        worst: Case | None = None
        for group, value in _finite(look.attention_logit_max).items():
            anchor = self._anchors.of("attention", group)
            if anchor is not None and value > max(
                config.attention_logit_large, config.attention_logit_growth * anchor
            ):
                case = Case(group, value, anchor, config.attention_logit_large, config.persist_looks, True)
                worst = case if worst is None or case.value > worst.value else worst
        group, value = _largest(look.attention_logit_max)
        high = value > config.attention_logit_max
        self._saturated = self._saturated + 1 if high else 0
        lasts = self._saturated >= config.persist_looks + 3 and not self._loss.solved()
        # A high rate takes them there and back in a training that is none the worse for it.
        far_out = value > FAR_OUT["attention_logit_growth"] * config.attention_logit_max
        lasts = lasts and (far_out or self._suffers())
        if high and (lasts or worst is None):
            anchor = self._anchors.of("attention", group)
            looks = 1 if lasts else inf
            return Case(group, value, anchor, config.attention_logit_max, looks, False)
        return worst

    def _activation(self, look: Look) -> Case | None:
        worst: Case | None = None
        anchors = {group: self._anchors.of("activation", group) for group in look.activation_rms}
        known = [anchor for anchor in anchors.values() if anchor is not None]
        least = SMALL * max(known) if known else 0.0
        for group, value in _finite(look.activation_rms).items():
            if group == self._head:
                continue  # the outputs begin near zero and grow to the size of their targets
            anchor = anchors[group]
            anchor = None if anchor is None else max(anchor, least)
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
            anchor = self._anchors.of(OUTPUT, name)
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
            anchor = self._anchors.of("dead", group)
            if anchor is not None and value > anchor + self._config.dead_unit_rise:
                threshold = anchor + self._config.dead_unit_rise
                worst = worst or Case(group, value, anchor, threshold, self._config.persist_looks, False)
        return worst

    def rebase(self) -> None:
        self._anchor_loss = None
        self._loss.forget_best()
        self._anchors.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incidents": {name: incident.state_dict() for name, incident in self._incidents.items()},
            "in_a_row": dict(self._in_a_row),
            "saturated": self._saturated,
            "before": dict(self._before),
            **self._anchors.state_dict(),
            "anchor_lr": self._anchor_lr,
            "head": self._head,
            "loss": self._loss.state_dict(),
            "unrest": self._unrest.state_dict(),
            "anchor_loss": self._anchor_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, incident in self._incidents.items():
            incident.load_state_dict(state["incidents"][name])
        self._in_a_row, self._saturated = dict(state["in_a_row"]), state["saturated"]
        self._before = dict(state["before"])
        self._anchors.load_state_dict(state)
        self._anchor_lr, self._head = state["anchor_lr"], state["head"]
        self._loss.load_state_dict(state["loss"])
        self._unrest.load_state_dict(state["unrest"])
        self._anchor_loss = state["anchor_loss"]


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Without the groups whose number is NaN or infinite: those are nan_loss's business."""
    return {group: value for group, value in values.items() if isfinite(value)}


def _largest(values: Mapping[str, float]) -> tuple[str, float]:
    """Group and number of the largest finite number; ("", 0.0) without any."""
    finite = _finite(values)
    group = max(finite, key=finite.__getitem__, default="")
    return group, finite.get(group, 0.0)
