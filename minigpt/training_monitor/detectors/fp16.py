"""overflow_streak, scale_collapse and gradient_underflow: where fp16's range ends, above and below."""

from collections.abc import Iterator
from math import isfinite, sqrt
from typing import Any

from minigpt.training_monitor.detectors.absence import Facts, named
from minigpt.training_monitor.finding import Evidence, Finding
from minigpt.training_monitor.incident import Incident
from minigpt.training_monitor.overflow import Fp16Config, OverflowJudge
from minigpt.training_monitor.parameter_signals import ParameterSignals
from minigpt.training_monitor.signals import StepSignals

SMALLEST_MATRIX = 256
"""Elements; of a smaller parameter a share of zeros says little."""
RISE = 0.3
"""A share of zeros this far above the parameter's own normal is a rise."""
SMOOTHING = 0.2
FLUSHED_BELOW = 1e-4
"""fp16 flushes what is below 6e-8. A gradient whose root mean square is above this has few elements so small: its
zeros are those of units that do not fire."""


class Fp16:
    """The scaler's first calibration, and an overflow now and then, are no finding.

    Underflow is looked for where exact zeros were counted, in any precision: nothing else flushes most of a model's
    small gradients to zero and leaves some. Embeddings have mostly zeros by nature; that is their normal.
    """

    def __init__(self, config: Fp16Config, precision: str | None) -> None:
        self._config = config
        self._in_fp16 = precision == "fp16"
        self._judge = OverflowJudge(config)
        self._streak = Incident("overflow_streak")
        self._collapse = Incident("scale_collapse")
        self._underflow = Incident("gradient_underflow")
        self._normal_zeros: dict[str, float] = {}
        self._last_look: int | None = None

    def observe(self, signals: StepSignals) -> list[Finding]:
        findings: list[Finding] = []
        if signals.scaler_scale is not None:
            self._in_fp16 = True
            self._judge.is_normal(signals)
            findings += self._overflows(signals, signals.scaler_scale)
        if signals.parameters is not None and signals.parameters.zero_fractions is not None:
            findings += self._zeros(signals, signals.parameters)
        return findings

    def _overflows(self, signals: StepSignals, scale: float) -> list[Finding]:
        step, close_steps = signals.step, self._config.close_steps
        count = max(self._judge.in_a_row, self._judge.in_window)
        evidence: Evidence = {
            "scaler_scale": scale,
            "overflows_in_a_row": self._judge.in_a_row,
            "count": count,
            "loss": signals.loss,
            "update_skipped": signals.update_skipped,
        }
        # A NaN loss overflows whatever the scale: that is nan_loss.
        trigger = self._judge.trigger if signals.scaler_overflow and isfinite(signals.loss) else None
        findings: list[Finding] = []
        if trigger is not None:
            evidence = {**evidence, "trigger": trigger, "since": step - self._judge.in_a_row + 1}
            findings += self._streak.bad(step, evidence) + self._streak.sustain(step, evidence)
        elif not signals.scaler_overflow:
            findings += self._streak.good(step, close_steps, evidence)
        if scale >= self._config.min_scale:
            return findings + self._collapse.good(step, close_steps, evidence)
        evidence = {**evidence, "value": scale, "threshold": self._config.min_scale}
        return findings + self._collapse.bad(step, evidence) + self._collapse.sustain(step, evidence)

    def _zeros(self, signals: StepSignals, parameters: ParameterSignals) -> list[Finding]:
        if not isfinite(signals.grad_norm) or (signals.grad_norm == 0.0 and not self._in_fp16):
            return []  # nothing at all came back: another trouble
        step = signals.step
        matrices = list(_matrices(parameters))
        large = set() if self._in_fp16 else _large(parameters)
        flushed = [name for name, zeros in matrices if name not in large and self._is_flushed(name, zeros)]
        next_to_it, self._last_look = self._last_look == step - 1, step
        if not matrices or len(flushed) < self._config.min_underflow_share * len(matrices):
            for name, zeros in matrices:
                usual = self._normal_zeros.get(name, zeros)
                self._normal_zeros[name] = usual + SMOOTHING * (zeros - usual)
            return self._underflow.good(step, 2 if next_to_it else 1, {})
        shares = [zeros for _, zeros in matrices]
        evidence: Facts = {**named(parameters.facts, set(flushed)), "value": sum(shares) / len(shares)}
        if signals.scaler_scale is not None:
            evidence["scaler_scale"] = signals.scaler_scale
        findings = self._underflow.bad(step, evidence)
        # Looks far apart cannot wait for another one.
        if self._underflow.bad_count >= 2 or not next_to_it:
            findings += self._underflow.sustain(step, evidence)
        return findings

    def _is_flushed(self, name: str, zeros: float) -> bool:
        if zeros <= self._config.max_zero_fraction:
            return False
        usual = self._normal_zeros.get(name)
        return self._in_fp16 if usual is None else zeros > usual + RISE

    def rebase(self) -> None:
        """Other layers or data: other zeros."""
        self._normal_zeros.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "judge": self._judge.state_dict(),
            "streak": self._streak.state_dict(),
            "collapse": self._collapse.state_dict(),
            "underflow": self._underflow.state_dict(),
            "normal_zeros": dict(self._normal_zeros),
            "last_look": self._last_look,
            "in_fp16": self._in_fp16,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._judge.load_state_dict(state["judge"])
        self._streak.load_state_dict(state["streak"])
        self._collapse.load_state_dict(state["collapse"])
        self._underflow.load_state_dict(state["underflow"])
        self._normal_zeros = dict(state["normal_zeros"])
        self._last_look = state["last_look"]
        self._in_fp16 = state["in_fp16"]


def _large(parameters: ParameterSignals) -> set[str]:
    """Parameters whose gradients are far above what fp16 flushes."""
    rows = zip(parameters.facts.names, parameters.facts.sizes, parameters.grad_norms, strict=True)
    return {name for name, size, norm in rows if norm is not None and norm > FLUSHED_BELOW * sqrt(size)}


def _matrices(parameters: ParameterSignals) -> Iterator[tuple[str, float]]:
    """(name, share of exact zeros in the gradient) of every matrix that was looked at."""
    facts, zeros = parameters.facts, parameters.zero_fractions
    assert zeros is not None
    for name, size, trains, share in zip(facts.names, facts.sizes, facts.trainable, zeros, strict=True):
        if trains and size >= SMALLEST_MATRIX and share is not None and isfinite(share):
            yield name, share
