"""Short real trainings around a suggested learning rate: does it hold what the range test promises?"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.lab.experiments.campaign import outcomes
from minigpt.lab.experiments.experiment import Arm, Claim, Results
from minigpt.lab.experiments.intervals import Mean, Share, mean_of
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.places import path_overrides
from minigpt.lab.experiments.rate_curves import rate_text
from minigpt.lab.experiments.table import Cell, Table, columns_of
from minigpt.lab.experiments.trial import PRESET, Trial, run_trial
from minigpt.lab.experiments.verdicts import verdict_text
from minigpt.lab.lr_find.sweep import Progress

SUGGESTED, CONFIGURED = "suggestion", "configured"
AROUND = 4.0
"""How far above and below the suggestion others are tried: enough for a difference that few seeds show."""
SAME = 1.05
"""Rates closer than this factor are one."""


@dataclass(frozen=True)
class Tried:
    """A rate that is trained with, and why."""

    rate: float
    role: str

    @property
    def name(self) -> str:
        return f"lr {rate_text(self.rate)}"

    @property
    def is_suggestion(self) -> bool:
        return SUGGESTED in self.role.split(", ")


def to_try(suggested: float | None, configured: float) -> list[Tried]:
    """The suggestion, AROUND times below and above, and the configured rate, lowest first; each rate once."""
    wanted = [] if suggested is None else [Tried(suggested, SUGGESTED)]
    if suggested is not None:
        wanted += [
            Tried(float(f"{suggested / AROUND:.1e}"), f"{SUGGESTED} / {AROUND:g}"),
            Tried(float(f"{suggested * AROUND:.1e}"), f"{SUGGESTED} x {AROUND:g}"),
        ]
    found: list[Tried] = []
    for one in [*wanted, Tried(configured, CONFIGURED)]:
        same = [
            at
            for at, other in enumerate(found)
            if max(one.rate, other.rate) < SAME * min(one.rate, other.rate)
        ]
        if same:
            found[same[0]] = Tried(found[same[0]].rate, f"{found[same[0]].role}, {one.role}")
        else:
            found.append(one)
    return sorted(found, key=lambda one: one.rate)


def best_of(tried: Sequence[Tried], results: Results) -> Tried:
    """The one with the lowest mean of the final losses; a loss that is not finite is infinite."""
    return min(tried, key=lambda one: mean_of([_loss(run) for run in results[one.name]]).value)


def beyond(tried: Sequence[Tried], results: Results) -> Tried | None:
    """The rate to try next where the best is the lowest or the highest so far: the best of all may lie further on."""
    best = best_of(tried, results)
    if best is tried[0] and len(tried) > 1:
        return Tried(float(f"{best.rate / AROUND:.1e}"), "further down")
    if best is tried[-1] and len(tried) > 1:
        return Tried(float(f"{best.rate * AROUND:.1e}"), "further up")
    return None


def trials(
    config: RunConfig, tried: Sequence[Tried], folder: Path, *, steps: int, seeds: int, threads: int
) -> list[Trial]:
    """The trainings: `config` cut to `steps`, its warm-up in proportion, evaluated at their end."""
    warmup = round(steps * min(1.0, config.schedule.warmup_steps / config.training.max_steps))
    shortened = (
        *whole_overrides(config),
        *path_overrides(config),
        f"training.max_steps={steps}",
        f"schedule.warmup_steps={warmup}",
        f"training.eval_every_steps={steps}",
        "training.sample_tokens=0",
        f"checkpoint.every_steps={steps}",
        "checkpoint.every_minutes=null",
    )
    found = []
    for one in tried:
        arm = Arm(name=one.name, overrides=(f"optimizer.learning_rate={one.rate!r}",))
        for number in range(seeds):
            of_seed = (
                f"training.seed={(config.training.seed + number) % 2**64}",
                f"data.seed={config.data.seed + number}",
            )
            place = folder.absolute() / "runs" / one.name.replace(" ", "_") / str(number)
            found.append(Trial(arm, number, (*shortened, *arm.overrides, *of_seed), place, threads))
    return found


def whole_overrides(config: RunConfig) -> tuple[str, ...]:
    """What turns the preset of all trials into `config`: an outcome is kept for as long as all of that is the same."""
    base = _leaves(load_config(PRESET).config.model_dump(mode="json"))
    wanted = _leaves(config.model_dump(mode="json"))
    return tuple(
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in wanted.items()
        if base[key] != value
    )


def _leaves(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= (
            _leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else {f"{path}{key}": value}
        )
    return found


def confirmed(wanted: Sequence[Trial], processes: int, progress: Progress) -> Results:
    """The outcomes by rate; with one process in this one.

    Raises:
        MiniGPTError: one failed or was interrupted; those that were done are kept.
    """
    runs: Iterator[Outcome] = map(run_trial, wanted) if processes == 1 else outcomes(wanted, processes)
    found = []
    for number, one in enumerate(runs, 1):
        found.append(one)
        progress(f"confirming {number}/{len(wanted)}: {one.arm}, seed {one.seed}: loss {one.final_loss:.3f}")
    names = dict.fromkeys(trial.arm.name for trial in wanted)
    return {
        name: sorted((one for one in found if one.arm == name), key=lambda one: one.seed) for name in names
    }


def difference(of: Sequence[Outcome], to: Sequence[Outcome]) -> Mean:
    """Mean difference of the final losses, seed by seed; infinite where only one of the two is finite in a seed."""
    pairs = [(_loss(one), _loss(other)) for one, other in zip(of, to, strict=True)]
    return mean_of([0.0 if one == other else one - other for one, other in pairs])


def _loss(outcome: Outcome) -> float:
    return outcome.final_loss if math.isfinite(outcome.final_loss) else math.inf


def table_of(tried: Sequence[Tried], results: Results) -> Table:
    """A row a rate."""
    suggested = next((one for one in tried if one.is_suggestion), None)
    rows: list[list[Cell]] = []
    for one in tried:
        found = results[one.name]
        validation = [run.validation_loss for run in found]
        rows.append(
            [
                rate_text(one.rate),
                one.role,
                mean_of([run.final_loss for run in found]),
                None if suggested in (None, one) else difference(found, results[suggested.name]),
                mean_of([math.nan if loss is None else loss for loss in validation]),
                Share(sum(run.blew_up is not None for run in found), len(found)),
                verdict_text(found),
            ]
        )
    head = (
        "learning rate",
        "which",
        "final loss",
        "against the suggestion, by seed",
        "validation loss",
        "blown up",
        "the monitor's verdict",
    )
    return columns_of(head, rows, "Short trainings (nats a token, mean and 95 % interval)")


def claim_of(tried: Sequence[Tried], results: Results) -> Claim | None:
    """Whether the suggestion is the best of those tried; None without a suggestion."""
    suggested = next((one for one in tried if one.is_suggestion), None)
    if suggested is None:
        return None
    text = f"the suggested rate, {rate_text(suggested.rate)}, is the best of those tried"
    changes = {
        one: difference(results[one.name], results[suggested.name]) for one in tried if one is not suggested
    }
    if not changes:
        return Claim(text=text, held="cannot be told", found="no other rate was tried.")
    rival = min(changes, key=lambda one: changes[one].value)
    change = changes[rival]
    said = f"the best other, {rate_text(rival.rate)} ({rival.role}), ends {_apart(change)}"
    if change.count < 2:
        return Claim(text=text, held="cannot be told", found=f"{said}; one seed has no interval.")
    # Without an interval, one of the two had no finite loss in some seed: the other is the better.
    if change.low > 0:
        return Claim(text=text, held="held", found=f"{said}.")
    if change.high < 0:
        return Claim(text=text, held="did not hold", found=f"{said}.")
    return Claim(text=text, held="cannot be told", found=f"{said}; the interval holds 0.")


def _apart(change: Mean) -> str:
    if math.isnan(change.value):
        return "in some seeds without a finite loss, and the suggestion in others"
    if math.isinf(change.value):
        return "without a finite loss" if change.value > 0 else "lower: the suggestion's loss is not finite"
    way = "higher" if change.value > 0 else "lower"
    around = "" if change.half_width is None else f" ± {change.half_width:.3f}"
    return f"{abs(change.value):.3f}{around} nats {way}"
