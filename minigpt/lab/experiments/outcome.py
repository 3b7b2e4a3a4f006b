"""What a training came to, from its own records."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from minigpt.atomic import write_text_atomically
from minigpt.config.facts import facts_of
from minigpt.config.run_config import RunConfig
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME
from minigpt.training_monitor.records.registry import open_record
from minigpt.training_monitor.verdict import judge

LAST_SHARE = 0.05
"""Of a run's steps: what its final training loss is the mean of."""
SMOOTHED_STEPS = 10
"""Steps that a curve is averaged over where a level is looked for."""
RISE = 1.0
"""Nats that the smoothed loss rises above its lowest so far, when a run is said to have blown up."""

WORTH = 0.1
"""Nats below the loss of the mere frequencies that a run must end, or it has learnt nothing."""


@dataclass(frozen=True)
class Outcome:
    """One finished training; losses in nats a token, None where they were not finite."""

    arm: str
    seed: int
    steps: int
    """Done; fewer than asked for where the monitor stopped the run."""
    stopped: bool
    losses: tuple[float | None, ...]
    """Of each step's batch."""
    grad_norms: tuple[float | None, ...]
    """Of each step, before clipping."""
    skipped_steps: tuple[int, ...]
    """Whose update was called off, because the loss or a gradient was not finite."""
    scaler_steps: tuple[int, ...]
    """Those of them that the loss scaler answered with a smaller scale: its ordinary way."""
    first_group_norms: Mapping[str, float | None]
    """Gradient norm by layer group at the first step."""
    last_group_norms: Mapping[str, float | None]
    """Their median over the last twentieth of the steps."""
    validation_loss: float | None
    health: str
    """The monitor's verdict: healthy | watch | sick."""
    findings: tuple[str, ...]
    """What the verdict names, the gravest first."""
    seconds_per_step: float
    """The median."""
    unigram_loss: float
    """Of a model that knows only how frequent each token is: the entropy of the text's tokens."""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    """Hardware, software, and the day it ended."""

    @property
    def final_loss(self) -> float:
        """Mean training loss of the last twentieth of the steps; NaN where it was not finite."""
        return mean_loss(self.losses[-max(1, round(LAST_SHARE * len(self.losses))) :])

    @property
    def smoothed(self) -> list[float]:
        """The loss averaged over SMOOTHED_STEPS, ending at each step from there on; NaN where one was not finite."""
        ends = range(SMOOTHED_STEPS, len(self.losses) + 1)
        return [mean_loss(self.losses[end - SMOOTHED_STEPS : end]) for end in ends]

    @property
    def blew_up(self) -> str | None:
        """Why the run is said to have blown up; None: it did not.

        A loss or gradient was not finite (but for the overflows that a loss scaler is there for), or the smoothed loss
        rose by RISE nats above its lowest.
        """
        if set(self.skipped_steps) - set(self.scaler_steps) or self.stopped or None in self.losses:
            return "not finite"
        lowest = math.inf
        for loss in self.smoothed:
            lowest = min(lowest, loss)
            if loss > lowest + RISE:
                return "rose"
        return None

    @property
    def learnt_nothing(self) -> bool:
        """Whether it ended, without blowing up, no better than by knowing how frequent each token is."""
        return self.blew_up is None and self.final_loss > self.unigram_loss - WORTH

    def steps_to(self, loss: float) -> int | None:
        """The first step at which the smoothed loss is down to `loss`."""
        reached = (index for index, value in enumerate(self.smoothed) if value <= loss)
        found = next(reached, None)
        return None if found is None else found + SMOOTHED_STEPS

    def save(self, path: Path) -> None:
        write_text_atomically(path, json.dumps(asdict(self), allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        values = json.loads(path.read_text(encoding="utf-8"))
        sequences = ("losses", "grad_norms", "skipped_steps", "scaler_steps", "findings")
        return cls(**{**values, **{name: tuple(values[name]) for name in sequences}})


def mean_loss(losses: Sequence[float | None]) -> float:
    """NaN where one is missing: a mean over the others would look better than the run was."""
    return statistics.fmean(math.nan if loss is None else loss for loss in losses)


def outcome_of(
    run_dir: Path,
    config: RunConfig,
    arm: str,
    seed: int,
    *,
    stopped: bool,
    unigram_loss: float,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    where: str,
) -> Outcome:
    """Read what the run in `run_dir` recorded, and have the monitor judge it."""
    steps = [json.loads(line) for line in (run_dir / METRICS_NAME).read_text("utf-8").splitlines()]
    events = [json.loads(line) for line in (run_dir / EVENTS_NAME).read_text("utf-8").splitlines()]
    evaluations = [event["data"]["loss"] for event in events if event["kind"] == "evaluation"]
    verdict = judge(open_record(run_dir), config.monitor, facts_of(config, precision=None, vocab_size=None))
    last = steps[-max(1, round(LAST_SHARE * len(steps))) :]
    return Outcome(
        arm=arm,
        seed=seed,
        steps=steps[-1]["step"],
        stopped=stopped,
        losses=tuple(_finite(step["loss"]) for step in steps),
        grad_norms=tuple(_finite(step["grad_norm"]) for step in steps),
        skipped_steps=tuple(step["step"] for step in steps if step["update_skipped"]),
        scaler_steps=tuple(step["step"] for step in steps if step["scaler_overflow"]),
        first_group_norms={name: _finite(norm) for name, norm in steps[0]["group_norms"].items()},
        last_group_norms={
            name: _median([_finite(step["group_norms"].get(name)) for step in last])
            for name in steps[0]["group_norms"]
        },
        validation_loss=_finite(evaluations[-1]) if evaluations else None,
        health=verdict.health,
        findings=tuple(
            dict.fromkeys(str(reason.values.get("name", reason.key)) for reason in verdict.reasons)
        ),
        seconds_per_step=statistics.median(step["seconds"] for step in steps),
        unigram_loss=unigram_loss,
        before=before,
        after=after,
        where=where,
    )


def _finite(value: Any) -> float | None:
    number = float(value) if isinstance(value, int | float | str) else math.nan
    return number if math.isfinite(number) else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
