"""Weight norms that change by more than the updates explain, or by the same factor every step."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

ABOVE_RECENT = 3.0
"""A change must also be this many times the largest of the recent ones: the updates of a few rows escape a sample."""
RECENT = 9
"""Measurements that are remembered."""
OUT_OF_BAND = 4.0
"""An update this many times its normal is estimated worse, and its norm's change allowed as many times more."""
YOUNG = 8
"""Accepted updates after which estimates are trusted fully."""
ALIGNED = 0.75
"""A change that is (nearly) all along the weights makes up this share of the update: optimizers move across them."""
SAME_RATE = 0.05
"""Relative difference of one step's rate of growth from the next's, at most, for both to be the same factor."""
MIN_RATE = 0.015
"""The least growth or shrinking a step: scales near 1 do move along themselves, slowly."""
SETTLED = 16
"""Accepted updates before a factor can be told from the first growth of small weights."""
UNUSUAL = 1.4
"""An update that also multiplies weights is this many times the parameter's normal."""
STEPS = 4
"""Measurements in a row with the same factor, after as many without it."""
DECAY_SHARE = 0.2
"""More than this share of the parameters shrinking by a factor is weight decay."""


class NormChanges:
    """Compares each weight norm with the one measured before it and with the updates between, by index."""

    def __init__(self, explained_ratio: float, slack: float) -> None:
        self._explained_ratio = explained_ratio
        self._slack = slack
        self._weights: deque[Sequence[float]] = deque(maxlen=RECENT)
        self._moved: Sequence[float] = ()
        self._steps = 0
        self._rates: dict[int, tuple[int, float]] = {}
        self._multiplied: set[int] = set()

    def forget_last(self) -> None:
        """A step is missing: the next norms have nothing to be compared with."""
        self._weights.clear()
        self._moved, self._steps, self._rates = (), 0, {}

    def move(self, updates: Sequence[float]) -> None:
        """Takes the update norms of a step."""
        if self._moved:
            self._moved = [moved + update for moved, update in zip(self._moved, updates, strict=True)]
        else:
            self._moved = updates
        self._steps += 1

    def take(self, weights: Sequence[float], normal: Sequence[float], accepted: int) -> list[int]:
        """The parameters whose new norms are not the optimizer's work; `normal` are their usual updates."""
        found: list[int] = []
        if self._weights and self._moved:
            rows = enumerate(zip(weights, self._weights[-1], self._moved, strict=True))
            # A quick look at all: nearly always there is nothing that a test could mind.
            changed = [
                i for i, (now, was, moved) in rows if abs(now - was) > ALIGNED * moved + self._slack * was
            ]
            if changed or self._rates or self._multiplied:
                stretched = self._stretched(changed, weights, normal, accepted)
                scaled = self._scaled(changed, weights, normal) if accepted >= SETTLED else []
                found = sorted({*stretched, *scaled})
        self._weights.append(weights)
        self._moved, self._steps = (), 0
        return found

    def _stretched(
        self, changed: list[int], weights: Sequence[float], normal: Sequence[float], accepted: int
    ) -> list[int]:
        found = []
        for i in changed:
            now, was, moved = weights[i], self._weights[-1][i], self._moved[i]
            if was == 0.0 or not isfinite(now) or not isfinite(was):
                continue
            change = abs(now - was) - self._slack * was
            wild = 0.0 < OUT_OF_BAND * self._steps * normal[i] < moved
            limit = self._explained_ratio * (1 + YOUNG / (1 + accepted)) * (OUT_OF_BAND if wild else 1.0)
            if change > limit * moved and change > ABOVE_RECENT * self._largest_change(i, 0):
                found.append(i)
        return found

    def _largest_change(self, i: int, newest: int) -> float:
        """Of the remembered norms of a parameter, without the `newest` ones."""
        norms = [weights[i] for weights in self._weights]
        norms = norms[: len(norms) - newest]
        return max((abs(now - was) for was, now in pairwise(norms)), default=0.0)

    def _scaled(self, changed: list[int], weights: Sequence[float], normal: Sequence[float]) -> list[int]:
        """Parameters that something multiplies by a factor at each step.

        Many of them shrinking is weight decay, and judged elsewhere.
        """
        along = {}
        for i in changed:
            now, was, moved = weights[i], self._weights[-1][i], self._moved[i]
            unusual = moved > UNUSUAL * self._steps * normal[i] > 0.0
            if unusual and MIN_RATE * self._steps * was < abs(now - was) < moved / ALIGNED and was > 0.0:
                along[i] = now / was - 1
        before, self._rates = self._rates, {}
        for i, rate in along.items():
            self._rates[i] = (self._same(before.get(i), rate), rate)
            if self._rates[i][0] == STEPS and self._began_at_once(i, abs(rate)):
                self._multiplied.add(i)
        self._multiplied &= set(along)
        found = sorted(self._multiplied)
        # Gradients hide the decay of most, so half of the rate counts.
        decay = min((-along[i] for i in found if along[i] < 0), default=0.0) / 2
        rows = zip(weights, self._weights[-1], strict=True)
        shrinking = sum(now < was * (1 - decay) for now, was in rows) if decay else 0
        return [] if shrinking > DECAY_SHARE * len(weights) else found

    def _began_at_once(self, i: int, rate: float) -> bool:
        """Whether the norm hardly changed before the factor came: what grows by itself begins slowly."""
        before = self._largest_change(i, STEPS - 1)
        return len(self._weights) > STEPS and rate * self._weights[-1][i] > ABOVE_RECENT * before

    def _same(self, before: tuple[int, float] | None, rate: float) -> int:
        """Measurements in a row with about this rate, up to now."""
        if before is None or abs(rate - before[1]) > SAME_RATE * abs(before[1]):
            return 1
        return before[0] + 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": [list(weights) for weights in self._weights],
            "moved": list(self._moved),
            "steps": self._steps,
            "rates": [[i, count, rate] for i, (count, rate) in self._rates.items()],
            "multiplied": sorted(self._multiplied),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._weights = deque((list(weights) for weights in state["weights"]), maxlen=RECENT)
        self._moved, self._steps = list(state["moved"]), state["steps"]
        self._rates = {int(i): (int(count), float(rate)) for i, count, rate in state["rates"]}
        self._multiplied = set(state["multiplied"])
