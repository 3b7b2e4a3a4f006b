"""Updates far above their parameter's own normal, though the rate and the gradient behind them were as ever."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from operator import gt
from typing import Any

from minigpt.training_monitor.baseline import median

SMOOTHING = 0.25
EVERY = 4
"""Once the normals are known, every so many steps are enough to follow them."""
ABOVE_PEAK = 4.0
"""A leap must also be this many times the parameter's own recent peak: sampled updates of rare tokens are uneven."""
PEAK_DECAY = 0.92
TOGETHER = 0.7
"""Where this share of all parameters leap in one step, each may leap less: chance moves single ones."""
LESS = 4.0
"""So many times less than alone, and half of that above the recent peak."""
SETTLED = 2.5
"""The other parameters update as ever when the middle one is below this many times its normal."""
BACK = 1 / 3
"""A leap is over when the next update is below this fraction of it; one that stays is a rate, not a jump."""


class UpdateLeaps:
    """Remembers each parameter's usual update and gradient, by its index."""

    def __init__(self, size: int, leap_ratio: float, min_history: int) -> None:
        self._leap_ratio = leap_ratio
        self._min_history = min_history
        self.normal = [0.0] * size
        """Each parameter's usual update norm; 0: not known."""
        self.accepted = 0
        """Updates that the normals were learnt from."""
        self._peak = [0.0] * size
        self._grad_normal = [0.0] * size
        self._lower_limits = [inf] * size
        self._seen = 0
        self._open: dict[int, float] = {}
        self._before: Sequence[float] = ()

    def forget_open(self) -> None:
        """A step is missing: what leapt before it cannot be confirmed."""
        self._open, self._before = {}, ()

    def take(
        self, updates: Sequence[float], grads: Sequence[float | None], *, steady: bool
    ) -> Mapping[int, float]:
        """The leaps, index to size, that ended with this update: that of the step before last was one.

        `grads` are the gradients behind these updates; `steady`: whether the learning rate was as before.
        """
        confirmed = self._confirmed(updates, grads) if self._open else {}
        leapt = self._leapt(updates, grads) if steady else []
        self._open = {i: updates[i] for i in leapt} if leapt else {}
        self._before = updates
        self._seen += 1
        young = self.accepted < self._min_history
        if not self._open and (young or self._seen % EVERY == 0):
            self._accept(updates, grads)
        return confirmed

    def _confirmed(self, updates: Sequence[float], grads: Sequence[float | None]) -> Mapping[int, float]:
        """The leaps of the step before, if most of them are over."""
        back = [i for i, leap in self._open.items() if self._is_back(i, updates[i], grads, leap)]
        return {i: self._open[i] for i in back} if 2 * len(back) >= len(self._open) else {}

    def _leapt(self, updates: Sequence[float], grads: Sequence[float | None]) -> list[int]:
        if self.accepted < self._min_history or not any(map(gt, updates, self._lower_limits)):
            return []
        together = self._leapt_together(updates, grads)
        if together:
            return together
        ratio, rows = self._leap_ratio, zip(self.normal, self._peak, strict=True)
        limits = [max(ratio * usual, ABOVE_PEAK * most) if usual > 0.0 else inf for usual, most in rows]
        found = [i for i, limit in enumerate(limits) if updates[i] > limit]
        leapt = {
            i
            for i in found
            if updates[i] > ratio * self.normal[i] * self._gradient_rise(i, grads)
            and self._rose(i, updates[i])
        }
        if not leapt or 2 * len(leapt) >= len(updates):
            return sorted(leapt)
        others = [updates[i] / usual for i, usual in enumerate(self.normal) if usual > 0.0 and i not in leapt]
        # Where the others leap as well, only less far, the whole training is unsettled.
        return sorted(leapt) if not others or median(others) < SETTLED else []

    def _leapt_together(self, updates: Sequence[float], grads: Sequence[float | None]) -> list[int]:
        """The parameters, when nearly all of them leap in the same step."""
        found = [i for i, limit in enumerate(self._lower_limits) if updates[i] > limit]
        if len(found) < TOGETHER * len(updates):
            return []
        ratio = self._leap_ratio / LESS
        leapt = [
            i
            for i in found
            if updates[i] > ratio * self.normal[i] * self._gradient_rise(i, grads)
            and self._rose(i, updates[i])
        ]
        return leapt if len(leapt) >= TOGETHER * len(updates) else []

    def _rose(self, i: int, update: float) -> bool:
        """Whether the step before was not as large: momentum carries on what one large gradient began."""
        return not self._before or self._before[i] < BACK * update

    def _gradient_rise(self, i: int, grads: Sequence[float | None]) -> float:
        """How many times its normal the gradient behind the update was, at least 1."""
        grad = grads[i] if i < len(grads) else None
        if not grad:
            return 1.0
        return max(grad / self._grad_normal[i], 1.0) if self._grad_normal[i] > 0.0 else inf

    def _is_back(self, i: int, update: float, grads: Sequence[float | None], leap: float) -> bool:
        """Whether a leap was over with one step, or goes on only because the gradients answered to it."""
        return update < BACK * leap or update < self.normal[i] * self._gradient_rise(i, grads)

    def _accept(self, updates: Sequence[float], grads: Sequence[float | None]) -> None:
        rate = max(SMOOTHING, 1 / (self.accepted + 1))
        # What rests for a step (an expert without tokens) keeps its normal.
        self.normal = [
            usual + rate * (new - usual) if new > 0.0 else usual
            for usual, new in zip(self.normal, updates, strict=True)
        ]
        rows = zip(updates, self._peak, strict=True)
        self._peak = [most if (most := PEAK_DECAY * before) > new else new for new, before in rows]
        if len(grads) == len(self._grad_normal):
            self._grad_normal = [
                usual + rate * (new - usual) if new is not None and isfinite(new) else usual
                for usual, new in zip(self._grad_normal, grads, strict=True)
            ]
        self.accepted += 1
        self._set_limits()

    def _set_limits(self) -> None:
        ratio, above = self._leap_ratio / LESS, 2 * ABOVE_PEAK / LESS
        self._lower_limits = [
            (peak if (peak := above * most) > (low := ratio * usual) else low) if usual > 0.0 else inf
            for usual, most in zip(self.normal, self._peak, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            "normal": list(self.normal),
            "accepted": self.accepted,
            "peak": list(self._peak),
            "grad_normal": list(self._grad_normal),
            "seen": self._seen,
            "open": [[i, leap] for i, leap in self._open.items()],
            "before": list(self._before),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.normal, self._peak = list(state["normal"]), list(state["peak"])
        self._grad_normal = list(state["grad_normal"])
        self.accepted, self._seen = state["accepted"], state["seen"]
        self._open = {int(i): float(leap) for i, leap in state["open"]}
        self._before = list(state["before"])
        self._set_limits()
