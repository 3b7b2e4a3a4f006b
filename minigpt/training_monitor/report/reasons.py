"""Why a recorded run is not healthy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from minigpt.training_monitor.report.episodes import REPEAT_COUNT, Episode, Episodes
from minigpt.training_monitor.report.summary import Summary

NON_FINITE = frozenset(("nan_loss", "non_finite_gradient"))
ABOVE_START, WORSE = 1.15, 1.25
"""A loss that ends so many times above where it began, or above its best phase: whatever the rules said, the run is
not what anybody wants."""
LEARNT_ON = 0.95
"""A loss that fell to this share of itself since a finding opened went on learning."""
LEAST_RATE, MOST_RATE = 1e-8, 1.5
"""Peak learning rates at which anything is trained: fine-tuning goes down to 1e-7, SGD and rate-free optimizers
up to 1. Outside them a loss that stands still needs no other explanation."""
STANDS_STILL = 0.98
VERY_SPARSE, MIN_ENTRIES = 50, 8
"""Where one step in so many is recorded, the rules' windows hold a value or two: what lasted for fewer entries at the
end may be chance."""
STANDING = frozenset(
    ("missing_gradient", "unoptimized_parameter", "frozen_parameter", "optimizer_state_lost", "weight_jump",
     "leftover_gradient", "label_mismatch", "label_leak")
)  # fmt: skip
"""Exact invariants whose breach is a fault of the program: it stands, or its harm is done, even when the signal is
normal again."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is not healthy; a key of the report's words."""

    key: str
    values: dict[str, Any] = field(default_factory=dict)


def sick_reasons(episodes: Episodes, summary: Summary, stopped_at: int | None) -> Iterator[Reason]:
    """What makes a run sick; nothing for one that is not."""
    said: set[str] = set()
    if stopped_at is not None:
        yield Reason("stopped", {"step": stopped_at})
    for episode in episodes.open:
        values = {"name": episode.name, "since": episode.opened_at, "step": summary.last_step}
        told = episode.incident in episodes.told
        if episode.name in NON_FINITE and (episode.interrupted or episode.lasted):
            said.add(episode.name)
            yield Reason("ended_non_finite", values)
        elif episode.status == "sustained" and told and _is_harm(episode, summary):
            said.add(episode.name)
            yield Reason("open_at_end", values)
    for episode in episodes.all:
        if episode.name in STANDING and episode.interrupted and episode.name not in said:
            said.add(episode.name)
            yield Reason("invariant", {"name": episode.name, "since": episode.opened_at})
    if summary.last_loss is not None and not isfinite(summary.last_loss) and not said & NON_FINITE:
        yield Reason(
            "ended_non_finite", {"name": "nan_loss", "since": summary.last_step, "step": summary.last_step}
        )
    losses = summary.began_and_ended()
    if losses is not None and losses[1] > ABOVE_START * losses[0]:
        yield Reason("above_start", {"began": f"{losses[0]:.4g}", "ended": f"{losses[1]:.4g}"})


def _is_harm(episode: Episode, summary: Summary) -> bool:
    """Whether a finding that is open at the end is more than small gradients under which the loss fell, or chance."""
    every = (summary.last - summary.first) / max(summary.count - 1, 1)
    by_chance = every >= VERY_SPARSE and episode.length < MIN_ENTRIES * every
    return not by_chance and _learnt_on(episode, summary) is None


def _learnt_on(episode: Episode, summary: Summary) -> tuple[float, float] | None:
    """Loss before and after, when it fell on under small gradients: then they did no harm, as only hindsight tells."""
    before, after = episode.opening_loss, summary.tail_losses.quantile(0.5)
    if episode.name != "gradient_vanishing" or before is None or after is None:
        return None
    return (before, after) if after < LEARNT_ON * before else None


def watch_reasons(episodes: Episodes, summary: Summary, said: set[str]) -> Iterator[Reason]:
    """What else is worth knowing, about findings that were not `said` yet."""
    for episode in episodes.all:
        if episode.name in said or not (episode.lasted or episode.interrupted):
            continue
        said.add(episode.name)
        values = {
            "name": episode.name,
            "since": episode.opened_at,
            "until": episode.at,
            "length": episode.length,
        }
        fell = _learnt_on(episode, summary)
        if episode.status == "sustained" and fell is not None:
            yield Reason("learnt_on", values | {"before": f"{fell[0]:.4g}", "after": f"{fell[1]:.4g}"})
        elif episode.status == "sustained":
            yield Reason("quiet_at_end", values)
        elif episode.status == "resolved":
            yield Reason("resolved", values)
        else:
            yield Reason("interrupted", values)
    for name, most in episodes.repeated.items():
        if most >= REPEAT_COUNT and name not in said:
            yield Reason("repeated", {"name": name, "count": episodes.transients[name]})
    yield from _absurd_rate(summary)
    losses = summary.began_and_ended()
    if losses is None:
        return
    began, ended, best = losses
    if WORSE * best + 0.02 * began < ended <= ABOVE_START * began:
        yield Reason("worse_than_before", {"best": f"{best:.4g}", "ended": f"{ended:.4g}"})


def _absurd_rate(summary: Summary) -> Iterator[Reason]:
    """A learning rate beyond all that trains, with a loss that bears it out."""
    losses, rate = summary.early_and_late(), summary.peak_lr
    if losses is None or not rate or LEAST_RATE <= rate <= MOST_RATE:
        return
    early, late = losses
    if late > STANDS_STILL * early:
        yield Reason("absurd_rate", {"lr": f"{rate:.3g}", "early": f"{early:.4g}", "late": f"{late:.4g}"})
