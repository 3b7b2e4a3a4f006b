"""What else moved: a short memory of a run's main quantities, so that a diagnosis can say what changed with it."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, isfinite, log, nan
from typing import Any

from minigpt.training_monitor.baseline import median
from minigpt.training_monitor.signals import StepSignals

STEPS = 96
"""Steps remembered."""
BEFORE = 40
"""Steps before an incident that tell what was usual then."""
LEAD = 2
"""Steps right before the first bad one that are left out of what was usual: the cause may act already."""
NOTABLE = {"loss": 1.05, "lr": 1.5, "label_match": 1.25}
"""Factor from which a change is worth telling; 1.5 for the others."""


def _middle(values: Iterable[float]) -> float:
    found = list(values)
    if not isfinite(sum(found)):
        found = [value for value in found if isfinite(value)]
    return median(found) if found else nan


def _of_batch(signals: StepSignals, name: str) -> float:
    value = None if signals.batch is None else getattr(signals.batch, name)
    return nan if value is None else float(value)


QUANTITIES: dict[str, Callable[[StepSignals], float]] = {
    "lr": lambda signals: signals.lr or nan,
    "loss": lambda signals: signals.loss,
    "grad_norm": lambda signals: signals.grad_norm,
    "update_ratio": lambda signals: _middle(signals.update_ratios.values()),
    "weight_norm": lambda signals: _middle(signals.weight_norms.values()),
    "scaler_scale": lambda signals: nan if signals.scaler_scale is None else signals.scaler_scale,
    "tokens": lambda signals: float(signals.tokens or nan),
    "distinct_tokens": lambda signals: _of_batch(signals, "distinct_tokens"),
    "label_match": lambda signals: _of_batch(signals, "label_match"),
}


@dataclass(frozen=True, slots=True)
class Movement:
    """How one quantity changed around an incident's first bad step."""

    before: float
    after: float
    ratio: float
    """after / before; inf from zero."""
    since: int
    """First step at which it had gone half of the way."""

    @property
    def rose(self) -> bool:
        return self.ratio > 1


class Movements:
    """The last steps' quantities; nothing is computed before a diagnosis asks."""

    def __init__(self) -> None:
        self._read: deque[list[float]] = deque(maxlen=STEPS)
        self._unread: deque[StepSignals] = deque(maxlen=STEPS)

    def add(self, signals: StepSignals) -> None:
        self._unread.append(signals)

    @property
    def _rows(self) -> deque[list[float]]:
        """The quantities of every step remembered: [step, ...]."""
        while self._unread:
            signals = self._unread.popleft()
            self._read.append([float(signals.step), *(read(signals) for read in QUANTITIES.values())])
        return self._read

    def around(self, opened_at: int) -> tuple[dict[str, Movement], frozenset[str]]:
        """Every quantity that changed notably between the steps before `opened_at` and now, and the names of
        those that are known and did not."""
        found = {name: self._movement(index, opened_at) for index, name in enumerate(QUANTITIES, start=1)}
        known = {name: movement for name, movement in found.items() if movement is not None}
        moved = {name: one for name, one in known.items() if _is_notable(name, one.ratio)}
        return moved, frozenset(known.keys() - moved.keys())

    def latest(self) -> dict[str, float]:
        """The newest known value of each quantity within the last few steps."""
        found: dict[str, float] = {}
        for row in list(self._rows)[-5:]:
            found |= {name: value for name, value in zip(QUANTITIES, row[1:], strict=True) if isfinite(value)}
        return found

    def earliest(self) -> dict[str, float]:
        """The oldest remembered value of each quantity."""
        found: dict[str, float] = {}
        for row in list(self._rows)[:5]:
            known = {name: value for name, value in zip(QUANTITIES, row[1:], strict=True) if isfinite(value)}
            found = known | found
        return found

    def jump(self, name: str, opened_at: int, factor: float) -> Movement | None:
        """The largest change of a quantity from one step to the next within 20 steps before `opened_at`, if at
        least `factor` times up or down: a ramp is no jump."""
        index = 1 + list(QUANTITIES).index(name)
        best: Movement | None = None
        rows = [row for row in self._rows if row[0] >= opened_at - 20 and isfinite(row[index])]
        for old, new in pairwise(rows):
            change = abs(_log_ratio(old[index], new[index]))
            if best is not None and best.rose and new[index] < old[index]:
                continue  # what leapt up and came back did leap up
            if change >= log(factor) and (best is None or change > abs(_log_ratio(best.before, best.after))):
                best = Movement(old[index], new[index], _ratio(old[index], new[index]), int(new[0]))
        return best

    def _movement(self, index: int, opened_at: int) -> Movement | None:
        rows = [(int(row[0]), row[index]) for row in self._rows if isfinite(row[index])]
        earlier = [value for step, value in rows if opened_at - BEFORE <= step < opened_at - LEAD]
        later = [(step, value) for step, value in rows if step >= opened_at - LEAD]
        if len(earlier) < 3 or not later:
            return None
        before, after = median(earlier), median([value for _, value in later[-3:]])
        half = _log_ratio(before, after) / 2
        since = next((step for step, value in later if _has_gone(before, value, half)), later[-1][0])
        return Movement(before, after, _ratio(before, after), since)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        width = 1 + len(QUANTITIES)
        self._unread.clear()
        self._read = deque((list(row) for row in state["rows"] if len(row) == width), maxlen=STEPS)


def _ratio(before: float, after: float) -> float:
    if before == after:
        return 1.0
    return after / before if before else inf


def _log_ratio(before: float, after: float) -> float:
    if before <= 0 or after <= 0:
        return 0.0 if before == after else (log(1e300) if after > before else -log(1e300))
    return log(after / before)


def _has_gone(before: float, value: float, half: float) -> bool:
    gone = _log_ratio(before, value)
    return gone >= half if half > 0 else gone <= half


def _is_notable(name: str, ratio: float) -> bool:
    factor = NOTABLE.get(name, 1.5)
    return ratio > factor or ratio < 1 / factor


def sized(ratio: float) -> str:
    """A factor for people: "x 48", "/ 20"."""
    if ratio == inf:
        return "from 0"
    if ratio <= 0:
        return "to 0"
    return f"x {ratio:.3g}" if ratio >= 1 else f"/ {exp(-log(ratio)):.3g}"
