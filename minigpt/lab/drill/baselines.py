"""The rules that others use, on the same records: the steps at which each would speak."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from minigpt.training_monitor.signals import StepSignals

Rule = Callable[[Sequence[StepSignals]], Iterator[int]]


def fixed_floor(signals: Sequence[StepSignals]) -> Iterator[int]:
    """Users' own rule: the gradient norm is under 1e-6."""
    return (one.step for one in signals if one.grad_norm < 1e-6)


def check_finite(signals: Sequence[StepSignals]) -> Iterator[int]:
    """Lightning's check_finite (and Composer's NaNMonitor): the loss is not finite."""
    return (one.step for one in signals if not math.isfinite(one.loss))


def three_sigma(signals: Sequence[StepSignals]) -> Iterator[int]:
    """A z-score over 3, either way, of the gradient norm against the mean and deviation of the last 128."""
    return _beyond([(one.step, one.grad_norm) for one in signals], sigmas=3.0, both_ways=True)


def olmo(signals: Sequence[StepSignals]) -> Iterator[int]:
    """OLMo-core, Levanter, MaxText: loss or norm over mean + 6 deviations of the last 128."""
    losses = _beyond([(one.step, one.loss) for one in signals], sigmas=6.0, both_ways=False)
    norms = _beyond([(one.step, one.grad_norm) for one in signals], sigmas=6.0, both_ways=False)
    return iter(sorted({*losses, *norms}))


def _beyond(
    series: Sequence[tuple[int, float]], *, sigmas: float, both_ways: bool, window: int = 128
) -> Iterator[int]:
    """Non-finite values are kept out of the window, which is kinder than the originals."""
    recent: deque[float] = deque(maxlen=window)
    for step, value in series:
        if len(recent) >= window // 2 and math.isfinite(value):
            mean = sum(recent) / len(recent)
            deviation = math.sqrt(sum((old - mean) ** 2 for old in recent) / len(recent))
            distance = abs(value - mean) if both_ways else value - mean
            if distance > sigmas * max(deviation, 1e-12):
                yield step
        if math.isfinite(value):
            recent.append(value)


BASELINES: dict[str, Rule] = {
    "norm < 1e-6": fixed_floor,
    "check_finite": check_finite,
    "3 sigma / 128 on norm": three_sigma,
    "OLMo 6 sigma / 128": olmo,
}


def events(steps: Sequence[int]) -> list[int]:
    """The first step of each unbroken row of alarms."""
    return [step for step in steps if step - 1 not in set(steps)]
