"""gradient_exploding: the gradient norm leaps far above its own normal and stays there, or climbs away from it."""

from collections import deque
from dataclasses import replace
from math import exp, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.loss_level import LossLevel
from minigpt.training_monitor.detectors.loss_standing import LossStanding
from minigpt.training_monitor.detectors.spike import SpikeRule
from minigpt.training_monitor.detectors.spike_config import ExplodingConfig
from minigpt.training_monitor.detectors.step_window import StepWindow
from minigpt.training_monitor.detectors.unrest import Unrest
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.group_baselines import GroupBaselines, uniform_factor
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

CLIMB_STEPS = 48
YOUNG_RISE = 2.0
"""Before the norm's anchor could be taken, a loss so many times that from before tells an explosion from the first
growth of the gradients."""
LEARNS = 0.05
"""Gradients that climb while the loss has come down by this fraction are those of a task that begins to be learnt."""
WORSE = 0.2
"""A loss that stands so far above that of the anchor's time (a fraction of it) shows what the climb does."""
UPDATES = 3.0
"""Updates so many times those of the anchor's time grew with the gradients (SGD)."""
ALONE, ALONE_TOTAL = 8.0, 1.5
"""One group so many times above its own normal explodes alone, if the whole norm shows it at all."""
ANCHOR_VALUES = 32
"""Accepted values, from warm-up's end, whose median is the anchor that slow drift is measured against."""


class GradientExploding:
    """A lasting spike of the gradient norm, or a slow climb far above its anchor, which the rolling normal would
    follow; names the layer group that rose most. All groups by one factor with the loss as before is
    gradient_scale_shift, not an explosion.
    """

    def __init__(self, config: ExplodingConfig, facts: RunFacts) -> None:
        self._config = config
        self._far = log(config.min_ratio)
        self._warm_at = max(facts.warmup_steps, 50)
        self._settled = False
        self._unrest = Unrest()
        self._standing = LossStanding()
        self._rule = SpikeRule("gradient_exploding", config)
        self._climb = Incident("gradient_exploding")
        self._groups = GroupBaselines()
        self._loss = LossLevel()
        self._window = StepWindow(CLIMB_STEPS)
        self._changes: deque[dict[str, float]] = deque(maxlen=4)
        self._anchor_values: list[float] = []
        self._anchor: float | None = None
        self._anchor_losses: list[float] = []
        self._losses: deque[float] = deque(maxlen=CLIMB_STEPS // 3)
        self._climbing_since: int | None = None
        self._alone_since: int | None = None
        self._center_before: float | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        if not signals.finite or signals.grad_norm <= 0:
            return []
        center, value = self._rule.baseline.center, log(signals.grad_norm)
        far = center is not None and value - center > self._far
        self._loss.note(signals.loss, normal=not far)
        if far:
            self._changes.append(self._groups.changes(signals))
        else:
            self._changes.clear()
            self._settled = signals.step >= self._warm_at  # for a spike that begins now
        findings = self._rule.observe(signals.step, signals.grad_norm, self._alarm)
        alone = self._one_group_rose(signals, value, center)
        if not far and not alone and not self._rule.incident.is_open and not findings:
            self._groups.accept(signals)
        since = signals.step if self._alone_since is None else self._alone_since
        adopted = signals.step - since >= self._config.readmit_steps
        if adopted or (findings and any(finding.evidence.get("new_normal") for finding in findings)):
            self._forget_levels()
        if not findings and not self._rule.incident.is_open:
            findings = self._climbing(signals, value)
        return [self._with_group(finding, signals) for finding in findings] if findings else findings

    def _alarm(self) -> str | None:
        """Why a lasting spike deserves attention; None for one factor over all groups with the loss as before, and
        while the loss tells of learning, or of a run so young that its gradients have no normal yet."""
        factor = uniform_factor(list(self._changes))
        if factor is not None and self._loss.fits(factor):
            return None
        if self._loss.has_fallen():
            return None
        return "lasts" if self._settled or self._loss.has_risen(YOUNG_RISE) else None

    def _climbing(self, signals: StepSignals, value: float) -> list[Finding]:
        step = signals.step
        self._window.add(step, value)
        self._losses.append(signals.loss)
        self._unrest.note(signals)
        self._standing.note(signals.loss)
        if self._anchor is None and step > self._warm_at:
            self._anchor_values.append(value)
            self._anchor_losses = [*self._anchor_losses, signals.loss][-ANCHOR_VALUES:]
            if len(self._anchor_values) == ANCHOR_VALUES:
                self._anchor, self._anchor_values = median(self._anchor_values), []
                self._unrest.settle()
        if self._alone_since is not None and step - self._alone_since + 1 >= self._config.persist_steps:
            return self._sustained(step, {"value": signals.grad_norm, "trigger": "group"})
        thirds = self._window.thirds() if self._anchor is not None and value > self._anchor + 1 else None
        if thirds is None or self._anchor is None or not self._rises(thirds) or self._learns():
            self._climbing_since = None
            return self._climb.good(step, self._config.close_steps, {"value": signals.grad_norm})
        self._climbing_since = self._climbing_since or step
        if step - self._climbing_since + 1 < self._config.persist_steps or not self._suffers():
            return []
        rise = thirds[2] - self._anchor
        evidence: Evidence = {
            "value": signals.grad_norm,
            "normal": exp(self._anchor),
            "ratio": exp(rise),
            "trigger": "climb",
        }
        return self._sustained(step, evidence)

    def _sustained(self, step: int, evidence: Evidence) -> list[Finding]:
        findings = self._climb.bad(step, evidence)
        return findings + (self._climb.sustain(step, evidence) if step >= self._config.first_step else [])

    def _one_group_rose(self, signals: StepSignals, value: float, center: float | None) -> bool:
        """Whether one group is far above its own normal and the rest are not; the total may show little of it."""
        # The total's own normal follows such a rise within a few steps: what counts is the one from before.
        self._center_before = center if self._alone_since is None else self._center_before
        rose = False
        if self._center_before is not None and value - self._center_before > log(ALONE_TOTAL):
            changes = sorted(self._groups.changes(signals).values())
            rose = len(changes) >= 3 and changes[-1] > log(ALONE) and median(changes) < log(ALONE) / 3
        self._alone_since = (self._alone_since or signals.step) if rose else None
        return rose

    def _rises(self, thirds: tuple[float, float, float]) -> bool:
        """Whether the norm is far above its anchor, and still on its way up."""
        first, middle, last = thirds
        assert self._anchor is not None
        return first < middle < last and last - self._anchor > log(2 * self._config.min_ratio)

    def _learns(self) -> bool:
        """Whether the loss is well below that at the anchor."""
        then, now = median(self._anchor_losses), median(self._losses)
        return now < then - LEARNS * abs(then)

    def _suffers(self) -> bool:
        """Whether loss or updates show it: gradients of a loss that goes on as before may grow, of whatever scale."""
        then = median(self._anchor_losses)
        worse = median(self._losses) > then + WORSE * abs(then) and self._standing.above_best()
        return worse or self._unrest.updates_risen(UPDATES) is not False

    def _forget_levels(self) -> None:
        self._anchor, self._anchor_values, self._climbing_since = None, [], None
        self._anchor_losses = []
        self._standing.forget_best()
        self._groups, self._alone_since = GroupBaselines(), None
        self._window.clear()

    def _with_group(self, finding: Finding, signals: StepSignals) -> Finding:
        blamed = self._groups.most_changed(signals, upwards=True)
        return replace(finding, evidence={**finding.evidence, **blamed, "loss": signals.loss})

    def rebase(self) -> None:
        self._rule.rebase()
        self._forget_levels()

    def state_dict(self) -> dict[str, Any]:
        return {
            "rule": self._rule.state_dict(),
            "climb": self._climb.state_dict(),
            "groups": self._groups.state_dict(),
            "loss": self._loss.state_dict(),
            "unrest": self._unrest.state_dict(),
            "standing": self._standing.state_dict(),
            "window": self._window.state(),
            "changes": [dict(change) for change in self._changes],
            "anchor_values": list(self._anchor_values),
            "anchor": self._anchor,
            "anchor_losses": list(self._anchor_losses),
            "losses": list(self._losses),
            "climbing_since": self._climbing_since,
            "alone_since": self._alone_since,
            "center_before": self._center_before,
            "settled": self._settled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rule.load_state_dict(state["rule"])
        self._climb.load_state_dict(state["climb"])
        self._groups.load_state_dict(state["groups"])
        self._loss.load_state_dict(state["loss"])
        self._unrest.load_state_dict(state["unrest"])
        self._standing.load_state_dict(state["standing"])
        self._window = StepWindow(CLIMB_STEPS, state["window"])
        self._changes = deque((dict(change) for change in state["changes"]), maxlen=4)
        self._anchor_values = list(state["anchor_values"])
        self._anchor = state["anchor"]
        self._anchor_losses = list(state["anchor_losses"])
        self._losses = deque(state["losses"], maxlen=CLIMB_STEPS // 3)
        self._climbing_since = state["climbing_since"]
        self._alone_since = state["alone_since"]
        self._center_before, self._settled = state["center_before"], state["settled"]
