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
    max_weight_gain: float | None = 4.0
    """A model that knows nothing, and whose typical matrix makes what it is given more than so many times as large,
    interrupts: the weights are too large. Xavier's and He's initializations and 0.02 give 0.1 to 1.5. null: never."""
    last_step: int = 3
    """The first loss must come by this step to count as one."""

    def __post_init__(self) -> None:
        rule = "initial_loss"
        require(self.max_ratio > 1, f"{rule}.max_ratio", self.max_ratio, "> 1")
        require(0 <= self.min_ratio < 1, f"{rule}.min_ratio", self.min_ratio, "at least 0, below 1")
        require(self.min_weight_rms >= 0, f"{rule}.min_weight_rms", self.min_weight_rms, ">= 0")
        require(self.uneven_ratio > 1, f"{rule}.uneven_ratio", self.uneven_ratio, "> 1")
        if self.max_weight_gain is not None:
            require(self.max_weight_gain > 1, f"{rule}.max_weight_gain", self.max_weight_gain, "> 1")
        require(self.last_step >= 1, f"{rule}.last_step", self.last_step, ">= 1")


EXACTLY = 1e-3
"""Relative difference from ln(vocab_size) within which a loss is that of a constant output."""
KNOWS_NOTHING = 0.95
"""A first loss above this fraction of ln(vocab_size) is that of a model which nobody has trained."""
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
        wrong = self._wrong_weights(signals, ratio)
        if not wrong:
            return []
        evidence = {**evidence, **wrong}
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def _uneven_weights(self, signals: StepSignals) -> list[Finding]:
        evidence = uneven_weights(signals.parameters, self._config.uneven_ratio)
        if evidence is None:
            return []
        evidence = {**evidence, "loss": signals.loss}
        findings = self._incident.bad(signals.step, evidence)
        return findings + self._incident.sustain(signals.step, evidence)

    def _wrong_weights(self, signals: StepSignals, ratio: float) -> Evidence:
        """What the first loss does not show, a last norm having hidden it; {}: the weights are of a usual size."""
        matrices = list(_matrices(signals))
        if not matrices:
            return {}
        rms, gain = median([rms for rms, _ in matrices]), median([gain for _, gain in matrices])
        if abs(ratio - 1) < EXACTLY and rms < self._config.min_weight_rms:
            return {"trigger": "weights", "weight_rms": rms, "threshold": self._config.min_weight_rms}
        highest = self._config.max_weight_gain
        if highest is not None and ratio > KNOWS_NOTHING and len(matrices) >= 4 and gain > highest:
            return {"trigger": "large", "gain": gain, "threshold": highest}
        return {}

    def rebase(self) -> None:
        """The first loss stays the first."""

    def state_dict(self) -> dict[str, Any]:
        return {"judged": self._judged, "incident": self._incident.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._judged = state["judged"]
        self._incident.load_state_dict(state["incident"])


def _matrices(signals: StepSignals) -> Iterator[tuple[float, float]]:
    """Root mean square, and gain on random input, of each trainable matrix that is not zero (output projections may
    start at zero). The gain is rms x sqrt(inputs); of n elements, sqrt(n) stands for the number of inputs.
    """
    parameters = signals.parameters
    if parameters is None or parameters.weight_norms is None:
        return
    facts = parameters.facts
    for norm, size, trains in zip(parameters.weight_norms, facts.sizes, facts.trainable, strict=True):
        if trains and size >= SMALLEST_MATRIX and norm > 0.0 and isfinite(norm):
            rms = norm / sqrt(size)
            yield rms, rms * size**0.25
