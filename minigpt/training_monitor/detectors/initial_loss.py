"""initial_loss: a model that knows nothing should lose ln(vocab_size); another first loss says how it was built."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Any, ClassVar

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.checks import STRICT, require
from minigpt.training_monitor.detectors.uneven_weights import uneven_weights
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.signals import StepSignals


@dataclass(frozen=True, kw_only=True)
class InitialLossConfig:
    """When the first loss is called initial_loss."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    enabled: bool = True
    """Whether this rule runs."""
    max_ratio: float = 1.35
    """A first loss above this many times ln(vocab_size) interrupts: weights too large, a sum instead of a mean."""
    min_ratio: float = 0.5
    """A first loss below this fraction of ln(vocab_size) is noted: pretrained weights, or the labels leak."""
    min_weight_rms: float = 1e-3
    """A first loss of exactly ln(vocab_size) from matrices with a typical root mean square below this interrupts: the
    weights are far too small. 0: never."""
    uneven_ratio: float = 10.0
    """A matrix whose first weights are so many times larger or smaller than those of its like in the other layers
    interrupts. Scales that go gradually with depth, and matrices of zeros, are chosen."""
    last_step: int = 3
    """The first loss must come by this step to count as one."""

    def __post_init__(self) -> None:
        rule = "initial_loss"
        require(self.max_ratio > 1, f"{rule}.max_ratio", self.max_ratio, "> 1")
        require(0 <= self.min_ratio < 1, f"{rule}.min_ratio", self.min_ratio, "at least 0, below 1")
        require(self.min_weight_rms >= 0, f"{rule}.min_weight_rms", self.min_weight_rms, ">= 0")
        require(self.uneven_ratio > 1, f"{rule}.uneven_ratio", self.uneven_ratio, "> 1")
        require(self.last_step >= 1, f"{rule}.last_step", self.last_step, ">= 1")


EXACTLY = 1e-3
"""Relative difference from ln(vocab_size) within which a loss is that of a constant output."""
SMALLEST_MATRIX = 256
"""Elements; smaller parameters are vectors."""


class InitialLoss:
    """Judges the first finite loss of a new training, once."""

    def __init__(self, config: InitialLossConfig, vocab_size: int | None, resumed: bool) -> None:
        self._config = config
        self._expected = log(vocab_size) if vocab_size is not None and vocab_size > 1 else None
        self._incident = Incident("initial_loss")
        self._judged = resumed

    def observe(self, signals: StepSignals) -> list[Finding]:
        if self._incident.is_open:
            return self._incident.close(signals.step, {})  # said once; what follows is for other rules
        if self._judged:
            return []
        if signals.step > self._config.last_step:
            self._judged = True
        if self._judged or not isfinite(signals.loss):
            return []
        self._judged = True
        return self._of_loss(signals) or self._uneven_weights(signals)

    def _of_loss(self, signals: StepSignals) -> list[Finding]:
        if self._expected is None:
            return []
        ratio = signals.loss / self._expected
        evidence: Evidence = {
            "value": signals.loss,
            "loss": signals.loss,
            "normal": self._expected,
            "ratio": ratio,
        }
        if ratio > self._config.max_ratio:
            findings = self._incident.bad(signals.step, evidence)
            return findings + self._incident.sustain(signals.step, evidence)
        if ratio < self._config.min_ratio:
            return self._incident.bad(signals.step, evidence)
        if abs(ratio - 1) < EXACTLY:
            return self._tiny_weights(signals, evidence)
        return []

    def _uneven_weights(self, signals: StepSignals) -> list[Finding]:
        evidence = uneven_weights(signals.parameters, self._config.uneven_ratio)
        if evidence is None:
            return []
        evidence = {**evidence, "loss": signals.loss}
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def _tiny_weights(self, signals: StepSignals, evidence: Evidence) -> list[Finding]:
        sizes = sorted(_matrix_rms(signals))
        if not sizes or (typical := median(sizes)) >= self._config.min_weight_rms:
            return []
        evidence = {**evidence, "weight_rms": typical, "threshold": self._config.min_weight_rms}
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def rebase(self) -> None:
        """The first loss stays the first."""

    def state_dict(self) -> dict[str, Any]:
        return {"judged": self._judged, "incident": self._incident.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._judged = state["judged"]
        self._incident.load_state_dict(state["incident"])


def _matrix_rms(signals: StepSignals) -> Iterator[float]:
    """Root mean square of each trainable matrix that is not zero (output projections may start at zero)."""
    parameters = signals.parameters
    if parameters is None or parameters.weight_norms is None:
        return
    facts = parameters.facts
    for norm, size, trains in zip(parameters.weight_norms, facts.sizes, facts.trainable, strict=True):
        if trains and size >= SMALLEST_MATRIX and norm > 0.0 and isfinite(norm):
            yield norm / sqrt(size)
