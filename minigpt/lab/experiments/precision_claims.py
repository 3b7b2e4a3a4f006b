"""What the users' table says of mixed precision, beside what was found."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from minigpt.lab.experiments.cost import has_peak, memory_of, speed_of
from minigpt.lab.experiments.experiment import Claim, Held, Results
from minigpt.lab.experiments.intervals import Mean, mean_of
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.pairs import loss_difference, signed, within
from minigpt.lab.experiments.underflow import ALL, LARGER_STEP, flushed_share, scale_text
from minigpt.lab.experiments.verdicts import blown_up, verdict_claim

FP32, BF16 = "fp32", "bf16"
BARE, LARGE = "fp16 without scaling", f"fp16, scale 1/{LARGER_STEP}"
STATIC, DYNAMIC = "fp16, scale 1024", "fp16 + GradScaler"
CLAIMED = ((1.8, 0.6), (1.3, 0.5))
"""Speed and memory of fp16 over fp32: the users' two tables."""
LOSS_ROUNDING, ROUNDING = 0.05, 0.05
"""The table gives one decimal."""
HARM = 0.2
"""Nats above the same run in fp32 from which on a run that did not blow up is broken all the same."""
LEFT = 0.1
"""Of the elements that fp16 flushes to zero, the share that scaling may leave so and still be said to prevent it."""


def claims(results: Results) -> list[Claim]:
    """One a statement of the users; those whose arms were left out are left out."""
    found: list[Claim] = []
    fp32 = results.get(FP32, ())
    if BARE in results:
        found.append(nan_claim(results[BARE]))
    if LARGE in results and fp32:
        found.append(large_step_claim(results[LARGE], fp32))
    if DYNAMIC in results and fp32:
        found.append(same_loss_claim(results[DYNAMIC], fp32))
    if DYNAMIC in results:
        for speed, memory in CLAIMED:
            found += [speed_claim(results[DYNAMIC], speed), memory_claim(results[DYNAMIC], memory)]
    if fp32:
        found.append(underflow_claim(fp32))
    called = f"the runs that blew up or ended {HARM:g} nats above fp32"
    return [
        *found,
        verdict_claim(results, partial(broken, fp32={one.seed: one.final_loss for one in fp32}), called),
    ]


def broken(one: Outcome, fp32: Mapping[int, float]) -> str | None:
    """What loses its gradients to underflow does not blow up; it learns less than the same run in fp32."""
    above = one.final_loss - fp32.get(one.seed, math.nan)
    return blown_up(one) or (f"ended {above:.2f} nats above fp32" if above > HARM else None)


def nan_claim(bare: Sequence[Outcome]) -> Claim:
    """Of the runs without a scale, how many came to a number that is not finite."""
    bad = sum(one.blew_up == "not finite" for one in bare)
    return Claim(
        text="fp16 without scaling ends in NaN",
        held="held" if bad == len(bare) else "held in part" if bad else "did not hold",
        found=f"{bad} of {len(bare)} runs met a loss or gradient that is not finite; their final loss is "
        f"{mean_of([one.final_loss for one in bare]).text()}. Without a scale gradients are smaller than with one: "
        "what fp16 cannot hold of them becomes 0, not infinite.",
    )


def large_step_claim(large: Sequence[Outcome], fp32: Sequence[Outcome]) -> Claim:
    """Where a missing scale does harm."""
    difference = loss_difference(large, fp32)
    tokens = LARGER_STEP * large[0].after["tokens"]
    return Claim(
        text=f"without scaling fp16 trains worse than fp32 where losses are divided by {tokens:,} targets (ours)",
        held=within(difference, 0.0, math.inf),
        found=f"at scale 1/{LARGER_STEP}, which makes the numbers of {large[0].after['tokens']:,} targets as small as "
        f"in a step of so many, the final loss is {signed(difference)} nats from that of fp32.",
    )


def same_loss_claim(scaled: Sequence[Outcome], fp32: Sequence[Outcome]) -> Claim:
    """1.9 and 1.9."""
    difference = loss_difference(scaled, fp32)
    return Claim(
        text="fp16 with GradScaler ends at the loss of fp32 (1.9 and 1.9)",
        held=within(difference, -LOSS_ROUNDING, LOSS_ROUNDING),
        found=f"the difference is {signed(difference, '.4f')} nats, seed by seed; up to {LOSS_ROUNDING} is the same.",
    )


def speed_claim(scaled: Sequence[Outcome], claimed: float) -> Claim:
    """On a CPU nothing can be said of it."""
    speed = mean_of([speed_of(one.after) for one in scaled])
    device = scaled[0].after["device"]
    text = f"fp16 trains {claimed} times as fast as fp32"
    measured = f"{speed.text('.2f')} times the speed of fp32, by the same steps in turns"
    if device == "cpu":
        reason = "; the figure is about a GPU, whose tensor cores multiply fp16 faster, and this is a CPU."
        return Claim(text=text, held="cannot be told", found=measured + reason)
    return Claim(
        text=text,
        held=_or_in_part(within(speed, claimed - ROUNDING, math.inf), speed.low > 1),
        found=measured + ".",
    )


def memory_claim(scaled: Sequence[Outcome], claimed: float) -> Claim:
    """By the allocator's peak on a GPU, else by the tensors that are held."""
    kind = "peak" if has_peak(scaled[0].after) else "held"
    shares = [memory_of(one.after, kind) for one in scaled]
    # A count of bytes, not a draw: it has no error, and one run tells it.
    whole = Mean(mean_of(shares).value, max(shares) - min(shares), len(shares))
    saved = mean_of([memory_of(one.after, "saved") for one in scaled]).value
    name = (
        "the allocator's peak"
        if kind == "peak"
        else "weights, gradients, moments and what is saved for backward"
    )
    return Claim(
        text=f"fp16 takes {claimed} of the memory of fp32",
        held=_or_in_part(within(whole, 0.0, claimed + ROUNDING), whole.high < 1),
        found=f"{whole.value:.2f} of it ({name}); of what is saved for backward {saved:.2f}. Autocast keeps weights, "
        "gradients, moments and the residual stream in fp32.",
    )


def underflow_claim(fp32: Sequence[Outcome]) -> Claim:
    """1024 in the step as it is, and in one that is LARGER_STEP times as large."""
    looks = [one.after["underflow"] for one in fp32]
    tokens = fp32[0].after["tokens"]
    steps = ((tokens, 1.0), (LARGER_STEP * tokens, 1 / LARGER_STEP))
    prevented, said = [], []
    for count, scale in steps:
        without, with_it = _flushed(looks, scale), _flushed(looks, 1024 * scale)
        if without:
            prevented.append(with_it <= LEFT * without)
        said.append(
            f"{count:,} tokens a step: {100 * without:.2g} % of the gradient's elements without scaling and "
            f"{100 * with_it:.2g} % with it (the gradient's error {_error(looks, scale)} and "
            f"{_error(looks, 1024 * scale)})"
        )
    held: Held = (
        "held" if prevented and all(prevented) else "held in part" if any(prevented) else "did not hold"
    )
    return Claim(
        text="loss scaling with the factor 1024 prevents underflow",
        held=held if prevented else "cannot be told",
        found="flushed to zero after training: " + "; ".join(said) + ".",
    )


def _flushed(looks: Sequence[Mapping[str, Any]], scale: float) -> float:
    return mean_of([flushed_share(look, scale) for look in looks]).value


def _error(looks: Sequence[Mapping[str, Any]], scale: float) -> str:
    errors = [look[scale_text(scale)][ALL]["error"] for look in looks]
    known = [error for error in errors if error is not None]
    return f"{100 * mean_of(known).value:.2g} %" if len(known) == len(errors) else "not finite"


def _or_in_part(held: Held, some: bool) -> Held:
    return "held in part" if held == "did not hold" and some else held
