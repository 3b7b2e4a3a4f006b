"""The comparison in words and columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.lab.time_to_loss.curve import Curve, mean_and_spread, seconds_to


@dataclass(frozen=True)
class Bout:
    """All trainings of one seed."""

    peer: Curve
    ours: tuple[Curve, ...]
    """Of one recipe, whole trainings of several lengths."""


def report(bouts: Sequence[Bout], wanted_share: float) -> list[str]:
    """A line a training, then what MiniGPT needs for the peer's final loss."""
    lines = [
        f"{'recipe':40s} {'seed':>4s} {'steps':>6s} {'ms a step':>9s} {'seconds':>8s}  validation loss after steps"
    ]
    for bout in bouts:
        lines += [_line(curve) for curve in (bout.peer, *bout.ours)]
    lines += ["", *_verdict(bouts, wanted_share)]
    return lines


def _line(curve: Curve) -> str:
    on_the_way = "  ".join(f"{step}: {loss:.4f}" for step, loss in curve.losses)
    sizes = f"{curve.seed:4d} {curve.steps:6d} {1e3 * curve.pace:9.1f} {curve.seconds:8.1f}"
    return f"{curve.recipe[:40]:40s} {sizes}  {on_the_way}"


def _verdict(bouts: Sequence[Bout], wanted_share: float) -> list[str]:
    lines = []
    paces = [bout.peer.pace / bout.ours[0].pace for bout in bouts]
    lines.append("steps a second over the peer's: " + _figure(paces))
    for index, first in enumerate(bouts[0].ours):
        shares = [bout.ours[index].seconds / bout.peer.seconds for bout in bouts]
        gaps = [bout.ours[index].final_loss - bout.peer.final_loss for bout in bouts]
        lines.append(
            f"{first.recipe}, {first.steps} steps: in {_figure(shares)} of the peer's time, "
            f"loss minus the peer's: {_figure(gaps, '+.4f')}"
        )
    needed = []
    for bout in bouts:
        finals = [(curve.seconds, curve.final_loss) for curve in bout.ours]
        seconds = seconds_to(bout.peer.final_loss, finals)
        if seconds is not None:
            needed.append(seconds / bout.peer.seconds)
    if len(needed) == len(bouts):
        lines.append(
            f"time to the peer's final loss over the peer's: {_figure(needed)} (between lengths: a line)"
        )
    reached = [
        any(
            curve.final_loss <= bout.peer.final_loss and curve.seconds <= wanted_share * bout.peer.seconds
            for curve in bout.ours
        )
        for bout in bouts
    ]
    lines.append(
        f"reached within {wanted_share:.3f} of the peer's time: {sum(reached)} of {len(bouts)} seeds"
    )
    return lines


def _figure(values: Sequence[float], form: str = ".3f") -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:{form}} +- {spread:.3f}"


def ablation_report(baseline: Sequence[Curve], variants: Sequence[Sequence[Curve]]) -> list[str]:
    """What each variant's loss and step time are against the baseline's, seed by seed."""
    base_loss, base_spread = mean_and_spread([curve.final_loss for curve in baseline])
    first, pace = baseline[0], mean_and_spread([curve.pace for curve in baseline])[0]
    seeds = ", ".join(str(curve.seed) for curve in baseline)
    lines = [
        f"{first.recipe}, {first.steps} steps, seeds {seeds}: loss {base_loss:.4f} +- {base_spread:.4f}, "
        f"{1e3 * pace:.1f} ms a step",
        f"{'changed':60s} {'loss minus':>20s} {'step time':>18s}",
    ]
    for curves in variants:
        gaps = [one.final_loss - base.final_loss for one, base in zip(curves, baseline, strict=True)]
        costs = [one.pace / base.pace for one, base in zip(curves, baseline, strict=True)]
        lines.append(f"{curves[0].recipe[:60]:60s} {_figure(gaps, '+.4f'):>20s} {'x ' + _figure(costs):>18s}")
    return lines
