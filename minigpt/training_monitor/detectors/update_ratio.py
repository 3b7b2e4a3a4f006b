"""update_ratio_high and update_ratio_low: the updates are too large, or far smaller, than the weights need."""

from math import exp, inf, isfinite, log, sqrt
from typing import Any

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.detectors.matrix_pace import MatrixPace
from minigpt.training_monitor.detectors.matrix_ratios import MatrixRatios
from minigpt.training_monitor.detectors.slow_normal import SlowNormal
from minigpt.training_monitor.detectors.update_ratio_config import UpdateRatioConfig
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals

MIN_HISTORY = 16
PAST_PEAK, SETTLED_STEPS = 0.98, 20
"""The learning rate has passed its peak when it was below this fraction of it for so many steps."""
BEYOND_PEAK, BEYOND_RISE = 1.5, 3.0
"""A rate so many times its former peak, with updates so many times as large, is too high."""
NOISE = 5.0
"""Robust standard deviations of the typical ratio that a rise must exceed."""
READMIT_STEPS = 60
LEAST = 0.05
"""Of a ratio that is all weight decay, estimated from a sample, this share may be something else."""
REPLACED = 0.9
"""An update this fraction of the weights after it was twice the weights before: nothing is left of them."""
SLOW_AFTER = 48
"""Updates before the slow normal begins: the first ones of small weights are far larger than any later."""
HARMLESS = 0.01
"""A typical ratio that healthy runs have is no alarm, however much larger it is than before."""


class UpdateRatio:
    """High: a matrix with more than `high` of itself replaced step after step, or the median of all matrices far
    above its own normal for this learning rate. Low: that median far below it, and below what smaller gradients
    explain. Embeddings (rare tokens) and vectors (gains, biases) are left out.

    The ratio seen at step t is of the update that ended step t-1: it goes with that step's rate and gradient.
    """

    def __init__(self, config: UpdateRatioConfig, facts: RunFacts) -> None:
        self._config = config
        self._far_down = log(config.fall)
        self._high = Incident("update_ratio_high")
        self._low = Incident("update_ratio_low")
        self._normal = Baseline(min_sigma=0.1)  # log(median ratio / lr)
        self._gradients = Baseline(min_sigma=0.1)
        self._slow = SlowNormal()  # the same two over some hundred steps
        self._before: tuple[float, float] | None = None  # (lr, grad norm) of the step before
        self._matrices = MatrixRatios(config.persist_steps)
        self._pace = MatrixPace(config.alone)
        self._weight_decay = facts.weight_decay or 0.0
        self._from_start = not facts.resumed  # else the peak of the learning rate is not known
        self._first_loss: float | None = None
        self._peak_lr = 0.0
        self._steps_past_peak = 0
        self._risen_since: int | None = None
        self._fallen_since: int | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        before, self._before = self._before, (signals.lr, signals.grad_norm)
        if self._first_loss is None and isfinite(signals.loss):
            self._first_loss = signals.loss
        ratios = self._matrices.of(signals)
        if not ratios or before is None or not isfinite(before[1]) or not signals.finite:
            return []
        values = list(ratios.values())
        if not isfinite(sum(values)):
            return []
        early = signals.step <= self._config.early_steps
        limit = self._config.early_high if early else self._config.high
        excess = self._matrices.too_high(signals.step, ratios, limit, early=early)
        excess = excess or self._matrices.embedding_too_high(signals, limit)
        middle = self._without_decay(median(values), before[0])
        relative = self._relative(signals.step, middle, *before) if middle > 0 else ""
        alone = self._pace.too_fast(signals) if signals.parameters is not None else ""
        if excess or alone or relative == "risen":
            worst = excess or alone or max(ratios, key=ratios.__getitem__)
            value = ratios[worst] if worst in ratios else signals.update_ratios[worst]
            count = self._matrices.excess if excess else int(bool(alone))
            return self._is_high(signals, worst, value, count, len(ratios))
        if relative != "fallen" and not self._high.is_open and not self._low.is_open:
            return []  # nearly always
        largest = max(values)
        if self._waits_for_the_loss(signals):
            if self._may_do_good(signals):
                return []
            return self._is_high(signals, max(ratios, key=ratios.__getitem__), largest, 1, len(ratios))
        calm: Evidence = {"value": largest, **self._compared(largest, before[0]), "lr": before[0]}
        findings = self._high.good(signals.step, self._config.close_steps, calm) if self._high.is_open else []
        evidence: Evidence = {"value": middle, **self._compared(middle, before[0]), "lr": before[0]}
        if relative != "fallen":
            return findings + self._low.good(signals.step, self._config.close_steps, evidence)
        findings += self._low.bad(signals.step, evidence)
        lasts = signals.step - (self._fallen_since or signals.step) + 1 >= self._config.low_persist_steps
        if lasts and signals.step >= self._config.first_step:
            findings += self._low.sustain(signals.step, evidence)
        return findings

    def _relative(self, step: int, middle: float, lr: float, grad_norm: float) -> str:
        """risen or fallen, when the median has been so for long enough; learns from normal steps."""
        value = log(middle) - (log(lr) if lr > 0 else 0.0)
        gradient = log(grad_norm) if grad_norm > 0 else None
        center = self._normal.center
        if center is None or self._normal.accepted < MIN_HISTORY:
            self._learn(value, gradient)
            return ""
        fall = center - value
        if gradient is not None and fall > self._far_down and (usual := self._gradients.center) is not None:
            fall -= max(0.0, usual - gradient)
        if gradient is None:  # nothing to move by
            self._fallen_since = None
            return ""
        fall = max(fall, self._slow.fall(value, gradient))
        beyond = self._beyond_its_peak(lr)
        if middle > HARMLESS and value - center + beyond > self._least_rise(beyond):
            self._risen_since = self._risen_since or step
            lasts = step - self._risen_since + 1
            self._readmit(lasts, value, gradient)
            return "risen" if lasts >= self._config.persist_steps else ""
        if fall > self._far_down:
            self._fallen_since = self._fallen_since or step
            return "fallen"
        self._learn(value, gradient)
        return ""

    def _without_decay(self, ratio: float, lr: float) -> float:
        """What is left of a typical ratio without decoupled weight decay, which goes on without gradients."""
        decay = lr * self._weight_decay
        return sqrt(max(ratio * ratio - decay * decay, (LEAST * ratio) ** 2))

    def _least_rise(self, beyond: float) -> float:
        """Log of the rise that is too much: one that the run's own noise (SGD on single samples) does not explain."""
        rise = log(self._config.rise if not beyond else BEYOND_RISE)
        return max(rise, NOISE * self._normal.sigma)

    def _beyond_its_peak(self, lr: float) -> float:
        """Log of how far the learning rate is above its own former peak, once it had begun to fall from there; else
        0. Warm-up reaches a peak and restarts return to it: going well beyond is no schedule's intent.
        """
        if not self._from_start:
            return 0.0
        if lr < PAST_PEAK * self._peak_lr:
            self._steps_past_peak += 1
        if self._steps_past_peak < SETTLED_STEPS:
            self._peak_lr = max(self._peak_lr, lr)
            return 0.0
        return log(lr / self._peak_lr) if lr > BEYOND_PEAK * self._peak_lr else 0.0

    def _readmit(self, lasts: int, value: float, gradient: float | None) -> None:
        if lasts > READMIT_STEPS:
            self._normal.restart([value])
            self._learn(value, gradient)

    def _learn(self, value: float, gradient: float | None) -> None:
        self._risen_since = self._fallen_since = None
        self._normal.accept(value)
        if gradient is not None:
            self._gradients.accept(gradient)
        if self._normal.accepted >= SLOW_AFTER:
            self._slow.accept(value, gradient)

    def _is_high(
        self, signals: StepSignals, name: str, ratio: float, count: int, total: int
    ) -> list[Finding]:
        lr = self._before[0] if self._before else signals.lr
        evidence: Evidence = {
            "value": ratio,
            "parameter": name,
            "threshold": self._config.high,
            "count": count,
            "of": total,
            "lr": lr,
            "loss": signals.loss,
            "grad_norm": signals.grad_norm,
            **self._compared(ratio, lr),
        }
        if not self._high.is_open and name == self._pace.fast:
            evidence = {**evidence, **self._pace.evidence}
        findings = self._high.bad(signals.step, evidence)
        harmless = self._may_do_good(signals) and self._matrices.first_excess(name) < REPLACED
        if signals.step >= self._config.first_step and not harmless:
            findings += self._high.sustain(signals.step, evidence)
        return findings

    def _waits_for_the_loss(self, signals: StepSignals) -> bool:
        """Whether the first updates were too large, and what they do to the loss is still to be seen."""
        early = signals.step <= self._config.early_steps and self._from_start
        return early and self._high.is_open and not self._high.sustained

    def _may_do_good(self, signals: StepSignals) -> bool:
        """Whether large updates may be those of a start without warm-up that works: the loss comes down with them, and
        they shrink by themselves as the weights grow."""
        early = signals.step <= self._config.early_steps and self._from_start
        return early and self._first_loss is not None and signals.loss < self._first_loss

    def _compared(self, ratio: float, lr: float) -> dict[str, float]:
        center = self._normal.center
        if center is None:
            return {"normal": self._config.high, "ratio": ratio / self._config.high}
        normal = exp(center) * (lr if lr > 0 else 1.0)
        return {"normal": normal, "ratio": ratio / normal if normal > 0 else inf}

    def rebase(self) -> None:
        self._peak_lr, self._steps_past_peak = 0.0, 0
        self._normal, self._gradients = Baseline(min_sigma=0.1), Baseline(min_sigma=0.1)
        self._slow = SlowNormal()
        self._pace.forget()
        self._risen_since = self._fallen_since = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "high": self._high.state_dict(),
            "low": self._low.state_dict(),
            "normal": self._normal.state_dict(),
            "gradients": self._gradients.state_dict(),
            "slow": self._slow.state(),
            "pace": self._pace.state_dict(),
            "first_loss": self._first_loss,
            "before": None if self._before is None else list(self._before),
            "peak_lr": self._peak_lr,
            "steps_past_peak": self._steps_past_peak,
            "matrices": self._matrices.state_dict(),
            "risen_since": self._risen_since,
            "fallen_since": self._fallen_since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._high.load_state_dict(state["high"])
        self._low.load_state_dict(state["low"])
        self._normal.load_state_dict(state["normal"])
        self._gradients.load_state_dict(state["gradients"])
        before = state["before"]
        self._slow = SlowNormal(state["slow"])
        self._pace.load_state_dict(state["pace"])
        self._first_loss = state["first_loss"]
        self._before = None if before is None else (before[0], before[1])
        self._peak_lr = state["peak_lr"]
        self._steps_past_peak = state["steps_past_peak"]
        self._matrices.load_state_dict(state["matrices"])
        self._risen_since = state["risen_since"]
        self._fallen_since = state["fallen_since"]
