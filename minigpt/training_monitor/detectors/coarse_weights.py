"""Updates that most weights are too coarse to take: in bf16 a weight of 0.02 moves by 0.00012 or not at all."""

from math import sqrt
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.absence import Facts
from minigpt.training_monitor.detectors.matrix_ratios import matrices
from minigpt.training_monitor.parameter_signals import ParameterFacts, ParameterSignals
from minigpt.training_monitor.signals import StepSignals

LOOKS = 3
"""Looks in a row; the probes look at single elements every 16 steps."""
HIGH_RATE = 0.5
"""Below this fraction of its peak the learning rate is on its way down: then small updates are meant."""
DEAD = 0.5
"""Share of exactly zero gradients (units that do not fire) from which on weights rest for another reason."""
ROUNDED_UP = 0.5
"""Adam's update (root mean square, in learning rates) that is lost is smaller; with stochastic rounding the few weights
that move do so by far more than it."""


class CoarseWeights:
    """Looks at the share of each matrix's weights that the last update moved at all."""

    def __init__(self, fraction: float, optimizer: str | None) -> None:
        self._fraction = fraction
        self._adam = optimizer is not None and "adam" in optimizer
        self._facts: ParameterFacts | None = None
        self._matrices: list[int] = []
        self._peak_lr = 0.0
        self._looks = 0

    def judge(self, signals: StepSignals, parameters: ParameterSignals, last_lr: float) -> Facts | None:
        """Evidence once most weights have stood still for long enough; {} while they do not; None: no look now."""
        self._peak_lr = max(self._peak_lr, last_lr)
        moved = parameters.moved_fractions
        if moved is None or parameters.update_norms is None:
            return None
        if parameters.facts is not self._facts:
            self._facts = parameters.facts
            self._matrices = [index for index, _ in matrices(parameters.facts)]
        still = [index for index in self._matrices if moved[index] < self._fraction]
        lost = 2 * len(still) > len(self._matrices) and last_lr >= HIGH_RATE * self._peak_lr > 0.0
        self._looks = self._looks + 1 if lost and not self._explained(parameters, last_lr) else 0
        if self._looks < LOOKS:
            return {}
        value = median([moved[index] for index in self._matrices])
        return {
            "trigger": "coarse",
            "value": value,
            "count": len(still),
            "of": len(self._matrices),
            "lr": last_lr,
        }

    def _explained(self, parameters: ParameterSignals, lr: float) -> bool:
        """Whether the gradients are mostly zero, or the rounding is stochastic."""
        zeros, updates, sizes = parameters.zero_fractions, parameters.update_norms, parameters.facts.sizes
        assert updates is not None
        if zeros is not None and median([zeros[index] or 0.0 for index in self._matrices]) > DEAD:
            return True
        sizes_of = [updates[index] / sqrt(sizes[index]) for index in self._matrices]
        return self._adam and median(sizes_of) > ROUNDED_UP * lr

    def forget(self) -> None:
        """The rates are learnt anew."""
        self._peak_lr, self._looks = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"peak_lr": self._peak_lr, "looks": self._looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._peak_lr, self._looks = state["peak_lr"], state["looks"]
