"""The leap that updates make when an optimizer begins with fresh moments, and how it settles."""

from collections.abc import Mapping
from math import exp, inf, isfinite, log
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.detectors.last_step import LastStep
from minigpt.training_monitor.signals import StepSignals

SMOOTHING = 0.1
"""Weight of the newest step in what is normal."""
EVERY = 4
"""Steps between looks at each layer, once their normals are known."""
NOISE = 8.0
"""Mean absolute deviations (log space) that a leap must exceed."""
MOST = 400.0
"""A larger leap is not one of moments that were cleared or scaled."""
LARGE = 8.0
"""A leap that changes the loss itself."""
STEADY = log(1.6)
"""Gradient norms and learning rate within this factor of what they were have not changed."""
EXPLAINED = 0.5
"""A layer's gradient that changed by this share of its update's leap (log space) may be what moved it."""
STEADY_LOSS = log(1.05)
ALIKE = 0.4
"""A layer leaps with the others from this share of the middle leap on (log space)."""
MOST_LAYERS = 0.7
"""Share of the layers that must leap alike."""
STAYS = 0.2
"""One step later at least this share of the leap must be left: what is over at once was another hiccup."""
SETTLES = 0.65
"""And in the end at most this share: what stays is another rate, or another optimizer."""


class MomentLeap:
    """Follows the sum of all layers' updates per unit of learning rate.

    Adam's fresh moments make updates leap up, momentum's make them fall; gradients, loss and rate do not move then.
    """

    def __init__(self, leap_ratio: float, min_history: int, patience: int) -> None:
        self._least = log(leap_ratio)
        self._min_history = min_history
        self._patience = patience
        self._layers: dict[str, float] = {}
        self._layer_grads: dict[str, float] = {}
        self._grads_before: dict[str, float] = {}
        self._forget()

    def _forget(self) -> None:
        self._accepted = 0
        self._mean = self._deviation = self._grad = self._loss = 0.0
        self._loss_before: float | None = None
        self._first: float | None = None
        self._waited = 0
        self._layers.clear()
        self._layer_grads.clear()
        self._grads_before.clear()

    def observe(self, signals: StepSignals, last: LastStep) -> float | None:
        """How many times their normal the updates had become, at the step that shows it; None: nothing to say."""
        found = self._judge(signals, last)
        self._loss_before = signals.loss if isfinite(signals.loss) else None
        self._grads_before = _logs(signals.group_norms, 1.0)
        return found

    def _judge(self, signals: StepSignals, last: LastStep) -> float | None:
        ratios = signals.update_ratios
        total = sum(ratios.values())
        if not 0.0 < total < inf or last.lr <= 0.0 or last.grad_norm <= 0.0 or not isfinite(signals.loss):
            return None
        update = log(total / last.lr)
        off = update - self._mean
        if self._first is not None:
            return self._waiting(off / self._first)
        known = self._accepted >= self._min_history
        if known and abs(off) > max(self._least, NOISE * self._deviation):
            self._waited += 1
            if self._waited == 1 and self._for_no_reason(signals, last, off):
                self._first, self._waited = off, 0
            elif self._waited >= self._patience:
                self._forget()
            return None
        self._waited = 0
        self._accept(signals, last, update)
        return None

    def _waiting(self, left: float) -> float | None:
        assert self._first is not None
        self._waited += 1
        if (self._waited == 1 and left < STAYS) or self._waited >= self._patience:
            self._forget()
        elif left < SETTLES:
            first = exp(self._first)
            self._forget()
            return first
        return None

    def _for_no_reason(self, signals: StepSignals, last: LastStep, off: float) -> bool:
        """Whether most layers leapt alike, and gradients, loss and rate are as they were."""
        if abs(off) > log(MOST) or signals.lr <= 0.0 or abs(log(signals.lr / last.lr)) > STEADY:
            return False
        if abs(log(last.grad_norm) - self._grad) > STEADY or signals.loss <= 0.0:
            return False
        # The loss that the update came from: a large leap shakes the next one.
        loss = self._loss_before if abs(off) > log(LARGE) and self._loss_before else signals.loss
        if loss <= 0.0 or abs(log(loss) - self._loss) > STEADY_LOSS:
            return False
        layers = _logs(signals.update_ratios, last.lr)
        leaps = {name: layers[name] - self._layers[name] for name in layers if name in self._layers}
        middle = median(list(leaps.values())) if leaps else 0.0
        if abs(middle) < self._least:
            return False
        alike = [name for name, leap in leaps.items() if leap / middle > ALIKE and self._unmoved(name, leap)]
        return len(alike) >= MOST_LAYERS * len(leaps)

    def _unmoved(self, name: str, leap: float) -> bool:
        """Whether the layer's own gradient, of which the whole one's norm may show nothing, cannot have made its leap.

        Gradients of a collapsed model's blocks, thousands of times smaller than its embedding's, come back for a step.
        """
        usual = self._layer_grads.get(name)
        before = self._grads_before.get(name)
        if usual is None or before is None:
            return True
        return abs(before - usual) <= max(STEADY, EXPLAINED * abs(leap))

    def _accept(self, signals: StepSignals, last: LastStep, update: float) -> None:
        rate = max(SMOOTHING, 1 / (self._accepted + 1))
        if self._accepted:
            self._deviation += rate * (abs(update - self._mean) - self._deviation)
        self._mean += rate * (update - self._mean)
        self._grad += rate * (log(last.grad_norm) - self._grad)
        if signals.loss > 0.0:
            self._loss += rate * (log(signals.loss) - self._loss)
        if self._accepted < self._min_history or self._accepted % EVERY == 0:
            rate = max(1 - (1 - SMOOTHING) ** EVERY, rate)
            _follow(self._layers, _logs(signals.update_ratios, last.lr), rate)
            _follow(self._layer_grads, self._grads_before, rate)
        self._accepted += 1

    def rebase(self) -> None:
        """All is learnt anew."""
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in STATE} | {
            name: dict(getattr(self, f"_{name}")) for name in BY_LAYER
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            setattr(self, f"_{name}", state[name])
        for name in BY_LAYER:
            # The first checkpoints had no gradients: those are learnt anew.
            setattr(self, f"_{name}", dict(state.get(name, {})))


STATE = ("accepted", "mean", "deviation", "grad", "loss", "loss_before", "first", "waited")
BY_LAYER = ("layers", "layer_grads", "grads_before")


def _logs(values: Mapping[str, float], unit: float) -> dict[str, float]:
    """By layer, in units; without those that have no logarithm."""
    return {name: log(value / unit) for name, value in values.items() if 0.0 < value < inf}


def _follow(usual: dict[str, float], values: Mapping[str, float], rate: float) -> None:
    for name, value in values.items():
        before = usual.get(name, value)
        usual[name] = before + rate * (value - before)
