"""gradient_vanishing: the gradient norm falls far below the run's own normal, and the loss stands still."""

from math import exp, log
from typing import Any

from minigpt.training_monitor.baseline import Baseline
from minigpt.training_monitor.detectors.anchor import Anchor
from minigpt.training_monitor.detectors.faint_gradients import FaintGradients
from minigpt.training_monitor.detectors.gradient_vanishing_config import VanishingConfig
from minigpt.training_monitor.detectors.recent import Point, Recent, listed, unlisted
from minigpt.training_monitor.finding import Finding
from minigpt.training_monitor.group_baselines import GroupBaselines
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals

TINIEST = 1e-300
MIN_HISTORY = 8
"""Accepted values before the run has a normal."""
HYSTERESIS = 2.0
"""A low norm is over when it is this many times above what made it low."""
SOLVED = 0.05
"""A loss below this fraction of the first one leaves no gradients in a healthy run either."""
RECOVERY = 1.5
"""Times its lowest level that a norm which has declined must reach again to be on its way up."""
ENOUGH_VALUES = 8
"""Low values that show a lasting fall in a sparse record, where persist_steps may hold one or two; a fall by the square
of drop_ratio needs no more than three."""


class GradientVanishing:
    """Low is any of: under the absolute floor; a small fraction of the run's normal; a long steep decline.

    Low alone is an event. It interrupts when it lasts, the loss stands still and first_step has passed. A
    norm that falls no faster than its loss is convergence; a run whose own normal lies under the floor (a
    scaled loss) is judged by the scale-free tests alone. Steps are the clock, not calls: a record of every
    tenth step is judged like a full one.
    """

    def __init__(self, config: VanishingConfig, warmup_steps: int = 0, adam_eps: float | None = None) -> None:
        self._config = config
        # Logarithms of the floor, and of how many times smaller the two ratios mean.
        self._floor = log(max(config.floor, TINIEST))
        self._drop, self._decline = -log(config.drop_ratio), -log(config.decline_ratio)
        self._faint = FaintGradients(config.eps_ratio, config.eps_steps, adam_eps)
        self._warmup_steps = warmup_steps
        self._incident = Incident("gradient_vanishing")
        self._baseline = Baseline(min_sigma=0.1)
        self._groups = GroupBaselines()
        self._recent = Recent(self._config.decline_steps)
        self._anchor = Anchor(max(config.first_step, warmup_steps))
        self._normal: Point | None = None  # level that the open incident fell from
        self._first: Point | None = None
        self._declining_since: int | None = None
        self._high_in_a_row = 0
        self._has_floor = True
        self._lowest: float | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        faint = self._faint.observe(signals, self._config.first_step)
        findings = self._observe(signals)
        return findings if findings or self._incident.is_open else faint

    def _observe(self, signals: StepSignals) -> list[Finding]:
        if not signals.finite or signals.grad_norm < 0:
            return []
        self._has_floor = self._has_floor and signals.loss > 0
        now = Point(signals.step, log(max(signals.grad_norm, TINIEST)), log(max(signals.loss, TINIEST)))
        self._first = self._first or now
        self._recent.add(now)
        if not self._incident.is_open and self._plainly_fine(now):
            self._declining_since, self._normal = None, None
            self._accept(now, None, signals)
            return []
        normal = self._normal if self._incident.is_open else self._usual_level()
        trigger = None if self._nothing_left() else self._trigger(now, normal)
        if trigger is None:
            seen = self._seen(signals, "", normal) if self._incident.is_open else {}
            self._declining_since = None
            findings = self._incident.good(now.step, self._config.close_steps, seen)
            if not self._incident.is_open:
                self._normal = None
                self._accept(now, normal, signals)
            return findings
        return self._low(now, normal, trigger, signals)

    def _plainly_fine(self, now: Point) -> bool:
        """Cheap, and nearly always so: no test could mind this norm, whatever the loss explains."""
        center, anchor = self._baseline.center, self._anchor.point
        if center is None or now.norm < self._floor:
            return False
        anchored = center if anchor is None else anchor.norm
        fall, rise = max(center, anchored) - now.norm, now.norm - min(center, anchored)
        return fall < self._drop and rise < self._decline and not self._declines()

    def _nothing_left(self) -> bool:
        """Whether small gradients are due: the task is learnt, or the loss has no floor (it may be negative) to tell
        how much is left to learn. What remains is the test against eps."""
        if not self._has_floor:
            return True
        typical = self._recent.typical_loss()
        return self._first is not None and typical < self._first.loss + log(SOLVED)

    def _trigger(self, now: Point, normal: Point | None) -> str | None:
        """Which test calls this norm low: drop, floor, decline; None when it is fine."""
        ease = log(HYSTERESIS) if self._incident.is_open else 0.0
        if normal is not None and now.fall_from(normal) > self._drop - ease:
            return "drop"
        if now.norm < self._floor + ease and (normal is None or normal.norm > self._floor):
            return "floor"
        if self._incident.is_open and self._declining_since is not None and normal is not None:
            still_down = now.fall_from(normal) > self._decline - ease
            return "decline" if still_down else None
        return "decline" if self._declines() else None

    def _declines(self) -> bool:
        return self._recent.declines(self._decline, least_span=self._config.decline_steps // 2)

    def _low(self, now: Point, normal: Point | None, trigger: str, signals: StepSignals) -> list[Finding]:
        if trigger == "decline" and self._declining_since is None:
            self._declining_since = self._recent.oldest.step
            thirds = self._recent.thirds()
            if thirds and (normal is None or thirds[0].norm > normal.norm):
                normal = thirds[0]  # the recent level has itself declined
        self._normal = normal
        evidence = self._seen(signals, trigger, normal)
        if not self._incident.is_open:
            self._lowest = None
        findings = self._incident.bad(now.step, evidence)
        if self._lasts(now, trigger, normal) and self._loss_stands_still(now, trigger, normal):
            if now.step >= self._config.first_step:
                findings += self._incident.sustain(now.step, evidence)
        elif not self._incident.sustained and self._is_new_normal(normal):
            findings += self._incident.close(now.step, {**evidence, "new_normal": True})
            self._adopt_new_normal()
        return findings

    def _lasts(self, now: Point, trigger: str, normal: Point | None) -> bool:
        length = self._incident.length
        huge = normal is not None and now.fall_from(normal) > 2 * self._drop
        if self._incident.bad_count < (3 if huge else min(ENOUGH_VALUES, self._config.persist_steps)):
            return False
        if trigger == "decline" and self._declining_since is not None:
            long_enough = now.step - self._declining_since >= self._config.decline_steps
            return not self._recovers() and long_enough and length > self._config.decline_steps // 2
        return length >= self._config.persist_steps

    def _recovers(self) -> bool:
        """Whether the norm is on its way up again from its lowest: what is lost for good does not come back."""
        thirds = self._recent.thirds()
        if thirds is None:
            return False
        level = thirds[2].norm
        self._lowest = level if self._lowest is None else min(self._lowest, level)
        return level - self._lowest > log(RECOVERY)

    def _loss_stands_still(self, now: Point, trigger: str, normal: Point | None) -> bool:
        improvement = self._recent.loss_improvement()
        if improvement is None or improvement >= self._config.max_loss_improvement:
            return False
        if trigger != "floor" or normal is not None:
            return True
        # Under the floor from the very start: a scaled loss looks the same, so only a run that has never
        # learnt anything, seen from its beginning and with some learning rate behind it, counts.
        warm = now.step >= self._warmup_steps // 2
        return warm and self._seen_from_start and not self._has_learnt()

    @property
    def _seen_from_start(self) -> bool:
        return self._first is not None and self._first.step <= max(self._config.first_step, 1)

    def _has_learnt(self) -> bool:
        """Whether the loss is clearly below the first one seen."""
        assert self._first is not None
        return 1 - exp(self._recent.typical_loss() - self._first.loss) >= self._config.max_loss_improvement

    def _is_new_normal(self, normal: Point | None) -> bool:
        """Low for long although the run does well: the loss goes on improving at the new level, or a run that
        was never above the floor has learnt, or cannot be judged because its start was not seen."""
        if self._incident.length <= self._config.decline_steps or self._incident.bad_count < ENOUGH_VALUES:
            return False
        improvement = self._recent.loss_improvement()
        if improvement is not None and improvement >= self._config.max_loss_improvement:
            return True
        return normal is None and (self._has_learnt() or not self._seen_from_start)

    def _adopt_new_normal(self) -> None:
        self._normal = None
        self._declining_since = None
        self._anchor.forget()
        self._baseline = Baseline(min_sigma=0.1)
        for point in self._recent.points:
            self._baseline.accept(point.norm)

    def _accept(self, now: Point, normal: Point | None, signals: StepSignals) -> None:
        """Learns from a normal step; from one far above normal only when that has become the new level."""
        too_high = normal is not None and now.norm - normal.norm > self._decline
        self._high_in_a_row = self._high_in_a_row + 1 if too_high else 0
        if 0 < self._high_in_a_row <= self._config.decline_steps:
            return
        self._baseline.accept(now.norm)
        self._groups.accept(signals)
        self._anchor.accept(now)

    def _usual_level(self) -> Point | None:
        """The higher of the anchor and the recent normal; None while the run has none."""
        anchor, center = self._anchor.point, self._baseline.center
        if center is None or self._baseline.accepted < MIN_HISTORY:
            return anchor
        recent = Point(self._recent.newest.step, center, self._recent.typical_loss())
        if anchor is None:
            return recent
        # After an explosion the recent level is no yardstick: its end would look like a fall.
        recent = recent._replace(norm=min(recent.norm, anchor.norm + self._decline))
        return max(anchor, recent, key=self._recent.newest.fall_from)

    def _seen(self, signals: StepSignals, trigger: str, normal: Point | None) -> dict[str, float | int | str]:
        seen: dict[str, float | int | str] = {"value": signals.grad_norm, "floor": self._config.floor}
        seen["loss"] = signals.loss
        if trigger:
            seen["trigger"] = trigger
        if normal is not None:
            seen["normal"] = exp(normal.norm)
            seen["ratio"] = signals.grad_norm / max(exp(normal.norm), TINIEST)
        if self._declining_since is not None:
            seen["declining_since"] = self._declining_since
        improvement = self._recent.loss_improvement()
        if improvement is not None:
            seen["loss_improvement"] = improvement
        return {**seen, **self._groups.most_changed(signals, upwards=False)}

    def rebase(self) -> None:
        self._anchor.forget()
        self._baseline = Baseline(min_sigma=0.1)
        self._first = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "faint": self._faint.state_dict(),
            "incident": self._incident.state_dict(),
            "baseline": self._baseline.state_dict(),
            "groups": self._groups.state_dict(),
            "recent": [list(point) for point in self._recent.points],
            "anchor": self._anchor.state_dict(),
            "normal": listed(self._normal),
            "first": listed(self._first),
            "declining_since": self._declining_since,
            "high_in_a_row": self._high_in_a_row,
            "has_floor": self._has_floor,
            "lowest": self._lowest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._faint.load_state_dict(state["faint"])
        self._incident.load_state_dict(state["incident"])
        self._baseline.load_state_dict(state["baseline"])
        self._groups.load_state_dict(state["groups"])
        self._recent = Recent(self._config.decline_steps, [Point(*values) for values in state["recent"]])
        self._anchor.load_state_dict(state["anchor"])
        self._normal = unlisted(state["normal"])
        self._first = unlisted(state["first"])
        self._declining_since = state["declining_since"]
        self._high_in_a_row = state["high_in_a_row"]
        self._has_floor, self._lowest = state["has_floor"], state["lowest"]
