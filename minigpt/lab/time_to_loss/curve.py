"""What a training came to: how long its steps took, and its loss on the way."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Curve:
    """A finished training."""

    recipe: str
    seed: int
    steps: int
    parameters: int
    step_seconds: tuple[float, ...]
    """Of each step that was timed, evaluations, checkpoints and compiling left out."""
    losses: tuple[tuple[int, float], ...]
    """(steps trained, validation loss in nats a token), in order; the last is the end."""

    @property
    def final_loss(self) -> float:
        return self.losses[-1][1]

    @property
    def pace(self) -> float:
        """Seconds a step: the median, since a machine that is also used for something else makes a few steps slow."""
        return statistics.median(self.step_seconds)

    @property
    def seconds(self) -> float:
        """Of all steps at their median pace."""
        return self.steps * self.pace

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        values = json.loads(path.read_text(encoding="utf-8"))
        losses = tuple((int(step), float(loss)) for step, loss in values.pop("losses"))
        return cls(**{**values, "step_seconds": tuple(values["step_seconds"]), "losses": losses})


def seconds_to(loss: float, finals: Sequence[tuple[float, float]]) -> float | None:
    """Seconds until `loss` is reached, from (seconds, final loss) of whole trainings of several lengths.

    Each length is a training of its own, with a schedule that ends there: on the way of a longer one the learning rate
    is still high. Between two of them along a line; None where none of them comes so far, or all of them do.
    """
    ordered = sorted(finals)
    for (sooner, high), (later, low) in pairwise(ordered):
        if high > loss >= low:
            return sooner + (later - sooner) * (high - loss) / (high - low)
    return None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the distance between least and most: all there is to say of two or three seeds."""
    return statistics.fmean(values), (max(values) - min(values)) / 2
