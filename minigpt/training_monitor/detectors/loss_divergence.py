"""loss_divergence: the loss climbs away from its own best, or stays where a model knows less than nothing."""

from collections import deque
from math import exp, isfinite, log, sqrt
from typing import Any

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.detectors.fading import Fading
from minigpt.training_monitor.detectors.loss_divergence_config import LossDivergenceConfig
from minigpt.training_monitor.detectors.step_window import MIN_POINTS, StepWindow
from minigpt.training_monitor.detectors.unrest import Unrest
from minigpt.training_monitor.detectors.untrained_loss import UntrainedLoss
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

MIN_SIGMA = 0.02
LEARNT = 0.9
"""A loss below this fraction of the untrained one shows that the run has learnt something."""
CLIMBING_VALUES = 3
"""Losses in a row at which the window must have climbed: a sparse record has one or two in persist_steps."""
KNOWS = 0.7
"""A loss below this fraction of the untrained one is that of a model that still knows most of what it learnt: it must
have risen further before harder data do not explain it."""
CLIMB_NOISE = 2.5
"""Robust standard deviations of a single loss: by chance the best median lies well below the others."""
AGAIN = 1.3
"""A rise must be this many times (log space) the highest one that the run came back from."""
SOLVED = 0.05
"""Losses below this fraction of the first ones count as this fraction: there any factor is noise."""
LOW_RATE = 0.1
"""Below this fraction of its highest learning rate a healthy run can stand still on harder data."""
UNREST = 3.0
"""Gradient norms or updates so many times those from before tell a loss that stands high from harder data ..."""
SETTLE_EVERY = 8
LONG = 4
"""... and so does one that has not come down at all for so many windows."""


class LossDivergence:
    """Judges medians, not single losses, so that a noisy loss is seen as well as a quiet one.

    A level shift alone is what harder data do: it only opens a suspicion. It interrupts when the loss climbs
    on, when a whole window later it has not begun to come down from far above its best, or when it stays
    above the loss of an untrained model.
    """

    def __init__(self, config: LossDivergenceConfig, facts: RunFacts) -> None:
        self._config = config
        self._hardly = log(config.min_ratio)
        self._untrained = UntrainedLoss(facts)
        self._incident = Incident("loss_divergence")
        self._noise = Baseline(MIN_SIGMA)
        self._window = StepWindow(config.window_steps)
        self._half = StepWindow(config.window_steps // 2)
        self._fading = Fading()
        self._unrest = Unrest()
        self._short: deque[float] = deque(maxlen=8)
        self._best: float | None = None
        self._peak_lr = 0.0
        self._wrong_since: int | None = None
        self._climbing_since: int | None = None
        self._climbing_count = 0
        self._above_since: int | None = None
        self._has_floor = True
        self._rise = self._healed = 0.0  # log rise of the present excursion; the highest one that came back

    def observe(self, signals: StepSignals) -> list[Finding]:
        if isfinite(signals.loss) and signals.loss <= 0:
            self._has_floor = False  # of a loss that may be negative no factor means anything
        if not (isfinite(signals.loss) and self._has_floor):
            return []
        step, value = signals.step, log(signals.loss)
        if self._untrained.first is not None:
            value = max(value, self._untrained.first + log(SOLVED))
        self._untrained.note(step, value)
        self._peak_lr = max(self._peak_lr, signals.lr) if isfinite(signals.lr) else self._peak_lr
        if self._above_since is None or step - self._above_since >= self._config.window_steps:
            self._noise.accept(value)  # a climb is no noise; steps of a sparse record's climb look like it
        self._short.append(value)
        self._window.add(step, value)
        self._half.add(step, value)
        self._fading.note(signals, well=self._above_since is None)
        self._unrest.note(signals)
        if self._plainly_fine(step):
            return []
        thirds = self._window.thirds()
        if thirds is None or len(self._short) < 4:
            return []
        low_rate = 0 < signals.lr < LOW_RATE * self._peak_lr
        trigger = self._trigger(step, thirds, low_rate)
        evidence = self._evidence(signals, thirds, trigger)
        above = self._above_since is not None and step - self._above_since >= self._config.persist_steps
        if not above and self._wrong_since is None:
            return self._incident.good(step, self._config.close_steps, evidence)
        findings = self._incident.bad(step, evidence)
        if trigger and step >= self._config.first_step:
            findings += self._incident.sustain(step, evidence)
        return findings

    def _plainly_fine(self, step: int) -> bool:
        """Cheap, and nearly always so: nothing is open, and the loss is at its best or hardly above it."""
        if self._best is None or self._incident.is_open or self._above_since or self._wrong_since:
            return False
        last = self._window.last_third()
        last = self._best if last is None else last
        if last - self._best > self._hardly or self._may_be_wrong():
            return False
        self._best = min(last, self._best)
        self._climbing_since, self._climbing_count = None, 0
        if step % SETTLE_EVERY == 0:
            self._unrest.settle()
        return True

    def _may_be_wrong(self) -> bool:
        untrained = self._untrained.level
        return untrained is not None and max(self._short) > untrained

    def _trigger(self, step: int, thirds: tuple[float, float, float], low_rate: bool) -> str:
        """What is wrong beyond doubt: untrained, climbing, lasting; "" while it may still be harder data."""
        config = self._config
        wrong = self._is_wrong(thirds)
        self._wrong_since = (self._wrong_since or step) if wrong else None
        if self._wrong_since is not None and step - self._wrong_since >= config.persist_steps:
            return "untrained"
        if len(self._window) < MIN_POINTS or self._window.span < config.window_steps // 3:
            return ""
        last = thirds[2]
        self._best = min(last, self._best) if self._best is not None else last
        rise = last - self._best
        self._above_since = (self._above_since or step) if rise > self._margin(config.min_ratio) else None
        if self._above_since is None:
            self._rise, self._healed = 0.0, max(self._healed, self._rise)
        else:
            self._rise = max(self._rise, rise)
        if rise <= AGAIN * self._healed:
            self._climbing_since, self._climbing_count = None, 0
            return ""  # it came back by itself from as high before: the order of the data, or noise
        if self._climbs(step, thirds, self._best):
            return "climbing"
        if self._has_forgotten(step, self._best):
            return "forgotten"
        if self._above_since is None or step - self._above_since < config.window_steps or low_rate:
            return ""
        stands = thirds[1] - last < config.recovery and thirds[0] - last < 2 * config.recovery
        untrained = self._untrained.level
        knows = untrained is not None and last < untrained + log(KNOWS)
        least = (2 if knows else 1) * log(config.lasting_ratio)
        if stands and rise > max(least, 2 * self._noise.sigma) and self._speaks_against(step):
            return "lasting"
        return "no_signal" if stands and self._fading.holds else ""

    def _speaks_against(self, step: int) -> bool:
        """Whether more than the level does: other data, in whatever order, raise the loss and leave the rest alone."""
        assert self._above_since is not None
        return step - self._above_since >= LONG * self._config.window_steps or self._unrest.risen(UNREST)

    def _margin(self, ratio: float) -> float:
        """Log of `ratio`, or what chance makes of the medians: more, where a sparse record leaves them few values."""
        full, seen = self._config.window_steps, len(self._window)
        return max(log(ratio), 1.5 * self._noise.sigma * sqrt(max(full / seen, 1.0)))

    def _climbs(self, step: int, thirds: tuple[float, float, float], best: float) -> bool:
        """Whether the loss has risen for long enough: steadily over the window, or steeply over half of it."""
        config = self._config
        margin = max(self._margin(config.climb_ratio), CLIMB_NOISE * self._noise.sigma)
        steady = self._window.is_full and _rises(thirds, best, margin)
        risen = self._above_since is not None and not steady and len(self._half) >= 12
        quick = self._half.thirds() if risen else None
        steep = quick is not None and _rises(quick, best, 2 * self._margin(config.climb_ratio))
        self._climbing_since = (self._climbing_since or step) if steady or steep else None
        self._climbing_count = self._climbing_count + 1 if steady or steep else 0
        if self._climbing_since is None or self._climbing_count < CLIMBING_VALUES:
            return False
        return step - self._climbing_since >= config.persist_steps // 2

    def _has_forgotten(self, step: int, best: float) -> bool:
        """Whether all that was learnt is gone, and nothing is learnt anew: wrong targets, wrecked weights."""
        untrained, half = self._untrained.level, self._half.thirds()
        if untrained is None or half is None or self._above_since is None:
            return False
        config = self._config
        lasts = step - self._above_since >= config.window_steps // 2
        knew = best < untrained + min(log(config.forgotten_best), -CLIMB_NOISE * self._noise.sigma)
        stands = half[0] - half[2] < 2 * config.recovery
        return lasts and knew and stands and min(half) > untrained + log(config.forgotten_ratio)

    def _is_wrong(self, thirds: tuple[float, float, float]) -> bool:
        """Whether the loss lies above that of guessing though the run had learnt, and does not fall fast."""
        untrained = self._untrained.level
        if untrained is None or self._best is None or self._best > untrained + log(LEARNT):
            return False
        values = list(self._short)
        half = len(values) // 2
        newest, older = median(values[-half:]), median(values[:half])
        return (
            min(newest, older) > untrained + log(self._config.untrained_ratio)
            and newest > older - self._config.recovery
        )

    def _evidence(self, signals: StepSignals, thirds: tuple[float, float, float], trigger: str) -> Evidence:
        if not self._incident.is_open and self._above_since is None and self._wrong_since is None:
            return {}
        seen: dict[str, float | int | str] = {
            "value": exp(median(self._short)),
            "loss": signals.loss,
            "lr": signals.lr,
        }
        if self._best is not None:
            seen["normal"] = exp(self._best)
            seen["ratio"] = exp(thirds[2] - self._best)
        if trigger:
            seen["trigger"] = trigger
        untrained = self._untrained.level
        if trigger == "untrained" and untrained is not None:
            seen["threshold"] = exp(untrained)
        return seen

    def rebase(self) -> None:
        self._best = None
        self._window.clear()
        self._half.clear()
        self._wrong_since = self._climbing_since = self._above_since = None
        self._climbing_count = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "incident": self._incident.state_dict(),
            "noise": self._noise.state_dict(),
            "window": self._window.state(),
            "half": self._half.state(),
            "fading": self._fading.state_dict(),
            "unrest": self._unrest.state_dict(),
            "untrained": self._untrained.state_dict(),
            "short": list(self._short),
            "best": self._best,
            "peak_lr": self._peak_lr,
            "wrong_since": self._wrong_since,
            "climbing_since": self._climbing_since,
            "climbing_count": self._climbing_count,
            "above_since": self._above_since,
            "has_floor": self._has_floor,
            "rise": self._rise,
            "healed": self._healed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._incident.load_state_dict(state["incident"])
        self._noise.load_state_dict(state["noise"])
        self._window = StepWindow(self._config.window_steps, state["window"])
        self._half = StepWindow(self._config.window_steps // 2, state["half"])
        self._fading.load_state_dict(state["fading"])
        self._unrest.load_state_dict(state["unrest"])
        self._untrained.load_state_dict(state["untrained"])
        self._short = deque(state["short"], maxlen=8)
        self._best = state["best"]
        self._peak_lr = state["peak_lr"]
        self._wrong_since = state["wrong_since"]
        self._climbing_since, self._climbing_count = state["climbing_since"], state["climbing_count"]
        self._above_since = state["above_since"]
        self._has_floor = state["has_floor"]
        self._rise, self._healed = state["rise"], state["healed"]


def _rises(thirds: tuple[float, float, float], best: float, margin: float) -> bool:
    """Whether each third lies well above the one before: a step up, however placed, is no climb."""
    first, middle, last = thirds
    share = 0.25 * (last - first)
    return last - best > margin and last - first > margin and last - middle > share and middle - first > share
