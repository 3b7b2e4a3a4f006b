"""update_ratio_high and update_ratio_low: the updates are too large, or far smaller, than the weights need."""

from dataclasses import dataclass
from math import exp, inf, isfinite, log
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import Baseline, median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.matrix_ratios import MatrixRatios
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.run_facts import RunFacts
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class UpdateRatioConfig:
    """When ||update|| / ||weights|| of the matrices is called update_ratio_high or update_ratio_low."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    first_step: int = 0
    """The first step at which this rule may interrupt; earlier it only notes events."""
    high: float = 0.15
    """A matrix whose update is more than this fraction of it, step after step, is written anew, not trained."""
    early_high: float = 0.3
    """The same for the first early_steps, in which Adam without warm-up takes its largest steps."""
    early_steps: int = 20
    """Steps from the start for which early_high counts."""
    rise: float = 8.0
    """Or so many times the run's own normal, beyond what the learning rate explains."""
    fall: float = 25.0
    """So many times below the run's own normal, beyond what learning rate and gradients explain, is low."""
    persist_steps: int = 3
    """Steps that large updates must last."""
    low_persist_steps: int = 15
    """Steps that small updates must last."""
    close_steps: int = 16
    """Normal steps in a row that end a sustained finding."""

    def __post_init__(self) -> None:
        name = "update_ratio"
        require(self.first_step >= 0, f"{name}.first_step", self.first_step, ">= 0")
        require(0 < self.high < 1, f"{name}.high", self.high, "between 0 and 1")
        require(
            self.early_high >= self.high,
            f"{name}.early_high",
            self.early_high,
            f"at least high = {self.high}",
        )
        require(self.early_steps >= 0, f"{name}.early_steps", self.early_steps, ">= 0")
        require(self.rise > 1, f"{name}.rise", self.rise, "> 1")
        require(self.fall > 1, f"{name}.fall", self.fall, "> 1")
        require(self.persist_steps >= 2, f"{name}.persist_steps", self.persist_steps, ">= 2")
        require(self.low_persist_steps >= 2, f"{name}.low_persist_steps", self.low_persist_steps, ">= 2")
        require(self.close_steps >= 1, f"{name}.close_steps", self.close_steps, ">= 1")


MIN_HISTORY = 16
PAST_PEAK, SETTLED_STEPS = 0.98, 20
"""The learning rate has passed its peak when it was below this fraction of it for so many steps."""
BEYOND_PEAK, BEYOND_RISE = 1.5, 3.0
"""A rate so many times its former peak, with updates so many times as large, is too high."""
NOISE = 5.0
"""Robust standard deviations of the typical ratio that a rise must exceed."""
READMIT_STEPS = 60
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
        self._before: tuple[float, float] | None = None  # (lr, grad norm) of the step before
        self._matrices = MatrixRatios(config.persist_steps)
        self._from_start = not facts.resumed  # else the peak of the learning rate is not known
        self._peak_lr = 0.0
        self._steps_past_peak = 0
        self._risen_since: int | None = None
        self._fallen_since: int | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        before, self._before = self._before, (signals.lr, signals.grad_norm)
        ratios = self._matrices.of(signals)
        if not ratios or before is None or not isfinite(before[1]) or not signals.finite:
            return []
        values = list(ratios.values())
        if not isfinite(sum(values)):
            return []
        early = signals.step <= self._config.early_steps
        limit = self._config.early_high if early else self._config.high
        excess = self._matrices.too_high(signals.step, ratios, limit)
        excess = excess or self._matrices.embedding_too_high(signals, limit)
        middle = median(values)
        relative = self._relative(signals.step, middle, *before) if middle > 0 else ""
        if excess or relative == "risen":
            worst = excess or max(ratios, key=ratios.__getitem__)
            value = ratios[worst] if worst in ratios else signals.update_ratios[worst]
            return self._is_high(signals, worst, value, self._matrices.excess, len(ratios))
        if relative != "fallen" and not self._high.is_open and not self._low.is_open:
            return []  # nearly always
        largest = max(values)
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
        findings = self._high.bad(signals.step, evidence)
        if signals.step >= self._config.first_step:
            findings += self._high.sustain(signals.step, evidence)
        return findings

    def _compared(self, ratio: float, lr: float) -> dict[str, float]:
        center = self._normal.center
        if center is None:
            return {"normal": self._config.high, "ratio": ratio / self._config.high}
        normal = exp(center) * (lr if lr > 0 else 1.0)
        return {"normal": normal, "ratio": ratio / normal if normal > 0 else inf}

    def rebase(self) -> None:
        self._peak_lr, self._steps_past_peak = 0.0, 0
        self._normal, self._gradients = Baseline(min_sigma=0.1), Baseline(min_sigma=0.1)
        self._risen_since = self._fallen_since = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "high": self._high.state_dict(),
            "low": self._low.state_dict(),
            "normal": self._normal.state_dict(),
            "gradients": self._gradients.state_dict(),
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
        self._before = None if before is None else (before[0], before[1])
        self._peak_lr = state["peak_lr"]
        self._steps_past_peak = state["steps_past_peak"]
        self._matrices.load_state_dict(state["matrices"])
        self._risen_since = state["risen_since"]
        self._fallen_since = state["fallen_since"]
