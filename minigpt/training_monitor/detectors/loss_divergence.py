"""loss_divergence: the loss climbs away from its own best, or stays where a model knows less than nothing."""

from collections import deque
from math import exp, isfinite, log, sqrt
from typing import Any

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.detectors.fading import Fading
from minigpt.training_monitor.detectors.loss_climb import LossClimb
from minigpt.training_monitor.detectors.loss_divergence_config import LossDivergenceConfig
from minigpt.training_monitor.detectors.loss_excursion import LossExcursion, Thirds, level_of, log_mean
from minigpt.training_monitor.detectors.loss_yardstick import LossYardstick
from minigpt.training_monitor.detectors.step_window import MIN_POINTS, StepWindow
from minigpt.training_monitor.detectors.unrest import Unrest
from minigpt.training_monitor.detectors.worse_than_guessing import WorseThanGuessing
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

MIN_SIGMA = 0.02
CLIMB_NOISE = 2.5
"""Robust standard deviations of a single loss: by chance the best median lies well below the others."""
LOW_RATE = 0.1
"""Below this fraction of its highest learning rate a healthy run can stand still on harder data."""
UNREST = 3.0
"""Updates so many times those from before, or gradients that rose so many times more than the loss did, tell a loss
that stands high from harder data ..."""
SETTLE_EVERY = 8
LONG = 4
"""... and so does one that has not come half-way down for so many windows."""


class LossDivergence:
    """Judges medians, not single losses, so that a noisy loss is seen as well as a quiet one.

    A level shift alone is what harder data do: it only opens a suspicion. It interrupts when the loss climbs
    on, when a whole window later it has not begun to come down from far above its best, or when it stays
    above the loss of an untrained model.
    """

    def __init__(self, config: LossDivergenceConfig, facts: RunFacts) -> None:
        self._config = config
        self._hardly = log(config.min_ratio)
        self._yardstick = LossYardstick(facts)
        self._incident = Incident("loss_divergence")
        self._noise = Baseline(MIN_SIGMA)
        self._window = StepWindow(config.window_steps)
        self._half = StepWindow(config.window_steps // 2)
        self._fading = Fading()
        self._unrest = Unrest()
        self._short: deque[float] = deque(maxlen=8)
        self._excursion = LossExcursion(config.window_steps)
        self._peak_lr = 0.0
        self._wrong = WorseThanGuessing(config.persist_steps, config.window_steps, config.recovery)
        self._climb = LossClimb(config.persist_steps // 2)

    def observe(self, signals: StepSignals) -> list[Finding]:
        step, value = signals.step, self._yardstick.take(signals)
        if value is None:
            return []
        self._peak_lr = max(self._peak_lr, signals.lr) if isfinite(signals.lr) else self._peak_lr
        since = self._excursion.since
        if since is None or step - since >= self._config.window_steps:
            self._noise.accept(value)  # a climb is no noise; steps of a sparse record's climb look like it
        self._short.append(value)
        self._window.add(step, value)
        self._half.add(step, value)
        self._fading.note(signals, well=since is None)
        self._unrest.note(signals)
        if self._plainly_fine(step):
            return []
        thirds = self._window.thirds()
        if thirds is None or len(self._short) < 4:
            return []
        low_rate = 0 < signals.lr < LOW_RATE * self._peak_lr
        trigger = self._trigger(step, thirds, low_rate)
        evidence = self._evidence(signals, thirds, trigger)
        since = self._excursion.since
        above = since is not None and step - since >= self._config.persist_steps
        if not above and self._wrong.since is None:
            return self._incident.good(step, self._config.close_steps, evidence)
        findings = self._incident.bad(step, evidence)
        if trigger and step >= self._config.first_step:
            findings += self._incident.sustain(step, evidence)
        return findings

    def _plainly_fine(self, step: int) -> bool:
        """Cheap, and nearly always so: nothing is open, and the loss is at its best or hardly above it."""
        best, last = self._excursion.best, self._window.last_third()
        if best is None or self._incident.is_open or self._excursion.since or self._wrong.since:
            return False
        level, untrained = level_of(last) if last else best, self._yardstick.untrained
        may_be_wrong = untrained is not None and max(self._short) > untrained
        if level.above(best) > self._hardly or may_be_wrong:
            return False
        self._excursion.improve(step, level)
        self._climb.forget()
        if step % SETTLE_EVERY == 0:
            self._unrest.settle()
        return True

    def _trigger(self, step: int, thirds: Thirds, low_rate: bool) -> str:
        """What is wrong beyond doubt: untrained, climbing, lasting; "" while it may still be harder data."""
        config, excursion = self._config, self._excursion
        if self._stays_wrong(step):
            return "untrained"
        if len(self._window) < MIN_POINTS or self._window.span < config.window_steps // 3:
            return ""
        excursion.note(step, level_of(self._window.last_third()), self._margin(config.min_ratio))
        if not excursion.is_new:
            self._climb.forget()
            return ""  # it came back by itself from as high before: the order of the data, or noise
        if self._climbs(step):
            return "climbing"
        if self._has_forgotten(step):
            return "forgotten"
        since = excursion.since
        if since is None or step - since < config.window_steps or low_rate or not self._has_learnt():
            return ""
        last = thirds[2]
        stands = thirds[1] - last < config.recovery and thirds[0] - last < 2 * config.recovery
        # A model that still knows most must be further off before harder data do not explain it.
        least = (2 if self._yardstick.knows(last) else 1) * log(config.lasting_ratio)
        least = max(least, self._yardstick.least_rise)
        if stands and excursion.rise > max(least, 2 * self._noise.sigma) and self._speaks_against(step):
            return "lasting"
        fades = excursion.leapt and excursion.rise > self._yardstick.least_rise and self._fading.holds
        return "no_signal" if stands and fades else ""

    def _has_learnt(self) -> bool:
        best = self._excursion.best
        return self._yardstick.learnt(None if best is None else best.median)

    def _speaks_against(self, step: int) -> bool:
        """Whether more than the level does: other data, in whatever order, raise the loss and leave the rest alone."""
        excursion = self._excursion
        if excursion.leapt and excursion.stands_for(step) >= LONG * self._config.window_steps:
            return True
        may_creep = self._yardstick.of_tokens or excursion.leapt  # of tokens, a loss means the same all along
        return may_creep and self._is_unrestful()

    def _is_unrestful(self) -> bool:
        """Whether updates or gradients are far above those from before, by more than the higher loss explains."""
        return self._unrest.risen(UNREST, explained=self._excursion.rise)

    def _margin(self, ratio: float) -> float:
        """Log of `ratio`, or what chance makes of the medians: more, where a sparse record leaves them few values."""
        full, seen = self._config.window_steps, len(self._window)
        return max(log(ratio), 1.5 * self._noise.sigma * sqrt(max(full / seen, 1.0)))

    def _climbs(self, step: int) -> bool:
        """Whether the loss climbs, far above its best."""
        least = self._margin(self._config.climb_ratio)
        margin = max(least, CLIMB_NOISE * self._noise.sigma)
        may = self._yardstick.of_tokens or self._has_learnt() or self._is_unrestful()
        if self._excursion.rise <= max(margin, self._yardstick.least_rise) or not may:
            self._climb.forget()
            return False
        half = None if self._excursion.since is None else self._half
        return self._climb.holds(step, self._window, half, margin, 2 * least)

    def _has_forgotten(self, step: int) -> bool:
        """Whether all that was learnt is gone, and nothing is learnt anew: wrong targets, wrecked weights."""
        untrained, half, best = self._yardstick.untrained, self._half.thirds(), self._excursion.best
        if untrained is None or half is None or self._excursion.since is None or best is None:
            return False
        config = self._config
        lasts = step - self._excursion.since >= config.window_steps // 2
        knew = best.median < untrained + min(log(config.forgotten_best), -CLIMB_NOISE * self._noise.sigma)
        stands = half[0] - half[2] < 2 * config.recovery
        known = self._yardstick.of_tokens or (
            self._excursion.rise > self._yardstick.least_rise and self._is_unrestful()
        )
        if not (lasts and knew and stands and known):
            return False
        gone = untrained + log(config.forgotten_ratio)
        means = self._half.thirds(log_mean)  # what only some batches lost shows in the medians
        return min(half) > gone and means is not None and min(means) > gone

    def _stays_wrong(self, step: int) -> bool:
        untrained = self._yardstick.untrained
        if untrained is None or self._excursion.best is None or not self._has_learnt():
            return False
        return self._wrong.lasts(step, list(self._short), untrained + self._wrong_margin())

    def _wrong_margin(self) -> float:
        """Log of how far above that of guessing is wrong: of a loss of tokens it is known what guessing means."""
        ratio = self._config.untrained_ratio
        if self._yardstick.of_tokens:
            return max(log(ratio), self._noise.sigma)
        return max(log(ratio), self._yardstick.least_rise, 2 * self._noise.sigma)

    def _evidence(self, signals: StepSignals, thirds: Thirds, trigger: str) -> Evidence:
        best = self._excursion.best
        if not self._incident.is_open and self._excursion.since is None and self._wrong.since is None:
            return {}
        seen: dict[str, float | int | str] = {
            "value": exp(median(self._short)),
            "loss": signals.loss,
            "lr": signals.lr,
        }
        if best is not None:
            seen["normal"] = exp(best.median)
            seen["ratio"] = exp(thirds[2] - best.median)
        if trigger:
            seen["trigger"] = trigger
        untrained = self._yardstick.untrained
        if trigger == "untrained" and untrained is not None:
            seen["threshold"] = exp(untrained)
        return seen

    def rebase(self) -> None:
        self._excursion.forget()
        self._window.clear()
        self._half.clear()
        self._wrong.forget()
        self._climb.forget()

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "noise": self._noise.state_dict(),
            "window": self._window.state(),
            "half": self._half.state(),
            "fading": self._fading.state_dict(),
            "unrest": self._unrest.state_dict(),
            "yardstick": self._yardstick.state_dict(),
            "short": list(self._short),
            "excursion": self._excursion.state_dict(),
            "peak_lr": self._peak_lr,
            "wrong": self._wrong.state_dict(),
            "climb": self._climb.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._noise.load_state_dict(state["noise"])
        self._window = StepWindow(self._config.window_steps, state["window"])
        self._half = StepWindow(self._config.window_steps // 2, state["half"])
        self._fading.load_state_dict(state["fading"])
        self._unrest.load_state_dict(state["unrest"])
        self._yardstick.load_state_dict(state["yardstick"])
        self._short = deque(state["short"], maxlen=8)
        self._excursion.load_state_dict(state["excursion"])
        self._peak_lr = state["peak_lr"]
        self._wrong.load_state_dict(state["wrong"])
        self._climb.load_state_dict(state["climb"])
