"""Above which gradient norm a step is not applied: known before the step, so that nobody waits for it."""

from collections import deque
from math import exp, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import Baseline
from minigpt.training_monitor.policy_config import PolicyConfig
from minigpt.training_monitor.signals import StepSignals

MIN_HISTORY = 32
"""Accepted norms before anything is skipped."""
MIN_SIGMA = 0.10
"""Floor of the standard deviation (log space), as for gradient_exploding."""
WINDOW = 500
"""Steps over which the share of skipped steps is taken."""
READMIT_STEPS = 40
"""Outliers in a row, applied or not, after which their level is the normal one."""


class SpikeGate:
    """The largest gradient norm that is applied, from the norms of earlier steps.

    The bound of a step comes from the steps before the one before it: those that a host which reads the device one
    step late knows, so that a run on CPU, on CUDA, or resumed decides alike.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._z_score, self._most = config.skip_spikes_z_score, config.skip_spikes_max_fraction * WINDOW
        self._baseline = Baseline(MIN_SIGMA)
        self._outliers: deque[float] = deque(maxlen=READMIT_STEPS)
        self._skipped: deque[bool] = deque(maxlen=WINDOW)
        self._bounds: deque[tuple[int, float | None]] = deque(maxlen=2)

    def bound_at(self, step: int) -> float | None:
        """The bound for `step` (counted from 1); None: everything finite is applied."""
        known = [bound for at, bound in self._bounds if at <= step - 2]
        return known[-1] if known else None

    def observe(self, signals: StepSignals) -> bool:
        """Takes in a step; whether its update was skipped as a spike (a non-finite one is another matter)."""
        spike = signals.update_skipped and signals.finite
        self._skipped.append(spike)
        if isfinite(signals.grad_norm) and signals.grad_norm > 0:
            self._take(log(signals.grad_norm))
        self._bounds.append((signals.step, self._bound()))
        return spike

    def _take(self, logarithm: float) -> None:
        center = self._baseline.center
        settled = self._baseline.accepted >= MIN_HISTORY
        if center is None or not settled or logarithm <= center + self._z_score * self._baseline.sigma:
            self._outliers.clear()
            self._baseline.accept(logarithm)
            return
        self._outliers.append(logarithm)
        if len(self._outliers) == READMIT_STEPS:
            self._baseline.restart(list(self._outliers))
            self._outliers.clear()

    def _bound(self) -> float | None:
        center = self._baseline.center
        if center is None or self._baseline.accepted < MIN_HISTORY or sum(self._skipped) >= self._most:
            return None
        return exp(center + self._z_score * self._baseline.sigma)

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self._baseline.state_dict(),
            "outliers": list(self._outliers),
            "skipped": list(self._skipped),
            "bounds": list(self._bounds),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._baseline.load_state_dict(state["baseline"])
        self._outliers = deque(state["outliers"], maxlen=READMIT_STEPS)
        self._skipped = deque(state["skipped"], maxlen=WINDOW)
        self._bounds = deque(state["bounds"], maxlen=2)
