"""From seconds a step to what is reported: medians over the rounds with their spread, ratios within a round."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigpt.lab.bench.match import Entry, Match

LOSS_NEAR_CHANCE = 0.5
"""Nats that a first loss may lie off ln V; first weights alone make up to about .3."""
LAST_LOSSES = 5
QUIET = 0.15
"""A ceiling that moves by more than this share of its median between the rounds tells of a busy machine."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one figure a round: half of the rounds lie between `low` and `high`."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def tokens_per_second(match: Match, entry: Entry) -> list[float]:
    """One a round."""
    return [match.terms.shape.tokens_per_step / seconds for seconds in entry.seconds_per_step]


def share_of_ceiling(match: Match, entry: Entry) -> list[float]:
    """The contender's own useful FLOP/s over those of the round's best matrix product."""
    paces = tokens_per_second(match, entry)
    return [entry.flops_per_token * pace / most for pace, most in zip(paces, match.ceilings, strict=True)]


def mfu(match: Match, entry: Entry) -> list[float] | None:
    """The contender's useful FLOP/s over the device's by its data sheet, one a round; None where that is not known."""
    if match.peak_flops is None:
        return None
    return [entry.flops_per_token * pace / match.peak_flops for pace in tokens_per_second(match, entry)]


def ratios(match: Match, entry: Entry, other: Entry) -> list[float]:
    """How many times faster `entry` is than `other`, one a round."""
    pairs = zip(tokens_per_second(match, entry), tokens_per_second(match, other), strict=True)
    return [one / two for one, two in pairs]


def best_peer(match: Match) -> Entry | None:
    """The fastest by its median of those that are not MiniGPT; None where none is."""
    peers = [entry for entry in match.entries if not entry.contender.is_ours]
    return max(peers, key=lambda peer: statistics.median(tokens_per_second(match, peer)), default=None)


def doubts(match: Match) -> list[str]:
    """What speaks against the figures: a line each."""
    lines = []
    if match.ceilings:
        low, high = min(match.ceilings), max(match.ceilings)
        if (high - low) / statistics.median(match.ceilings) > QUIET:
            lines.append(
                f"the machine was not quiet: its best matrix product went from {low / 1e9:,.0f} to {high / 1e9:,.0f} "
                "GFLOP/s between the rounds"
            )
    for entry in match.entries:
        spec, chance = entry.contender.spec, math.log(entry.vocab_size)
        if not all(map(math.isfinite, entry.losses)):
            lines.append(f"{spec}: a loss that is not finite")
        elif entry.losses and abs(entry.losses[0] - chance) > LOSS_NEAR_CHANCE:
            lines.append(f"{spec}: its first loss {entry.losses[0]:.2f} is not near ln V = {chance:.2f}")
        elif len(entry.losses) > 2 * LAST_LOSSES and last_loss(entry) >= entry.losses[0]:
            lines.append(f"{spec}: its loss does not fall")
    return lines


def last_loss(entry: Entry) -> float:
    """Mean of the last steps' losses."""
    return statistics.fmean(entry.losses[-LAST_LOSSES:])


def as_json(match: Match) -> dict[str, Any]:
    """Everything that was measured, and what was made of it."""
    return {
        "terms": match.terms.to_json(),
        "threads": match.threads,
        "ceiling_flops": match.ceilings,
        "peak_flops": match.peak_flops,
        "doubts": doubts(match),
        "contenders": [
            {
                "contender": entry.contender.spec,
                "note": entry.note,
                "parameters": entry.parameters,
                "flops_per_token": entry.flops_per_token,
                "start_seconds": entry.start_seconds,
                "peak_bytes": entry.peak_bytes,
                "seconds_per_step": entry.seconds_per_step,
                "tokens_per_second": tokens_per_second(match, entry),
                "share_of_ceiling": share_of_ceiling(match, entry),
                "mfu": mfu(match, entry),
                "losses": entry.losses,
                "ratio_to": {
                    other.contender.spec: ratios(match, entry, other)
                    for other in match.entries
                    if other is not entry
                },
            }
            for entry in match.entries
        ],
    }
