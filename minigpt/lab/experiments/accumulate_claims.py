"""What is said of gradient accumulation, beside what was found."""

import math
from collections.abc import Sequence

from minigpt.lab.experiments.experiment import Claim, Held, Results
from minigpt.lab.experiments.intervals import mean_of
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.pairs import loss_difference, signed, within
from minigpt.lab.experiments.room import TIMES, saving
from minigpt.lab.experiments.verdicts import verdict_claim

SIZES = (16, 4, 1)
ARMS = {size: f"micro-batch {size}" for size in SIZES}
WHOLE = ARMS[SIZES[0]]
"""The arm whose batch is undivided, and whose run is looked at."""
ROUNDING_ERRORS = 10
"""Two sums of the same numbers in another order may differ by so many times the rounding error of one of them."""
LOSS_ROUNDING = 0.05
SHORTER, ROUNDING = 0.58, 0.005
"""Of the training time, by the users' account."""


def claims(results: Results) -> list[Claim]:
    """The gradient, the curves, two ways to do it wrong, memory, time, the monitor."""
    found: list[Claim] = []
    whole = results.get(WHOLE, ())
    if whole:
        found.append(gradient_claim(whole))
    found += [curve_claim(name, results[name], whole) for name in results if whole and name != WHOLE]
    if whole:
        found += [means_claim(whole), division_claim(whole), memory_claim(whole), time_claim(whole)]
    return [*found, verdict_claim(results)]


def gradient_claim(whole: Sequence[Outcome]) -> Claim:
    """By the undivided batch's own rounding error."""
    looks = [one.before[kind] for one in whole for kind in ("full", "uneven")]
    furthest = max(split["sums"] for look in looks for split in look.values())
    own = max(next(iter(look.values()))["error"] for look in looks)
    return Claim(
        text="accumulated over micro-batches of any size, the gradient is that of the large batch",
        held="held" if furthest <= ROUNDING_ERRORS * own else "did not hold",
        found=f"up to rounding: it is at most {furthest:.1e} of its norm away, where the undivided batch's own is "
        f"{own:.1e} from that of fp64; also with uneven targets.",
    )


def curve_claim(name: str, found: Sequence[Outcome], whole: Sequence[Outcome]) -> Claim:
    """By the final losses, seed by seed."""
    difference = loss_difference(found, whole)
    largest = max(max(curve_differences(one, other)) for one, other in zip(found, whole, strict=False))
    finals = [one.final_loss for one in whole]
    spread = f"; seeds are {max(finals) - min(finals):.3f} apart" if len(finals) > 1 else ""
    return Claim(
        text=f"{name} trains like the undivided batch",
        held=within(difference, -LOSS_ROUNDING, LOSS_ROUNDING),
        found=f"the final losses differ by {signed(difference, '.1g')} nats, seed by seed, and no step's by more than "
        f"{largest:.1g}{spread}.",
    )


def curve_differences(one: Outcome, other: Outcome) -> list[float]:
    """Of each step's loss, without sign; infinite where one is not finite."""
    pairs = zip(one.losses, other.losses, strict=False)
    return [abs(a - b) if a is not None and b is not None else math.inf for a, b in pairs]


def means_claim(whole: Sequence[Outcome]) -> Claim:
    """The mean of means, where micro-batches have as many targets and where they have not."""
    looks = [one.before for one in whole]
    full, uneven = (
        max(split["means"] for look in looks for split in look[kind].values()) for kind in ("full", "uneven")
    )
    right = max(split["sums"] for look in looks for split in look["uneven"].values())
    return Claim(
        text="the mean of the micro-batches' mean losses gives the large batch's gradient (as many loops had it until "
        "2024)",
        held="held"
        if uneven <= ROUNDING_ERRORS * right
        else "held in part"
        if full <= ROUNDING_ERRORS * right
        else "did not hold",
        found=f"with as many targets in each it is at most {full:.1e} of the norm away, with uneven ones up to "
        f"{uneven:.2f} of it; summed losses over all targets, MiniGPT's way, stay within {right:.1e} there too.",
    )


def division_claim(whole: Sequence[Outcome]) -> Claim:
    """The users' loop, as written."""
    lengths = {
        int(next(iter(look))) // int(size): split["not_divided"]
        for look in (one.before["full"] for one in whole)
        for size, split in look.items()
    }
    parts = TIMES if TIMES in lengths else max(lengths)
    longer = lengths[parts]
    return Claim(
        text=f"backward() on each micro-batch's mean loss and an update every {parts} make the gradient of the large "
        "batch (the document's loop)",
        held="held" if abs(longer - 1) < 0.01 else "did not hold",
        found=f"it is {longer:.3f} times as long: each loss has to be divided by {parts} first, or clipping and the "
        "learning rate meet another gradient.",
    )


def memory_claim(whole: Sequence[Outcome]) -> Claim:
    """Whether four times the batch takes no more than the batch."""
    looks = [one.after for one in whole]
    batch, ways = looks[0]["batch"], looks[0]["ways"]
    kind = "held" if next(iter(ways.values()))["peak"] is None else "peak"
    saved = mean_of([saving(look, "bf16", kind) for look in looks]).value
    plain = mean_of([saving(look, "fp32", kind) for look in looks]).value
    base = ways[f"fp32, {batch}"][kind]
    at_once = ways[f"fp32, {TIMES * batch}"][kind] / base
    held: Held = "held" if saved >= 0 else "did not hold"
    return Claim(
        text=f"mixed precision and accumulation raise the batch from {batch} to {TIMES * batch} in the same memory",
        held=held,
        found=f"{TIMES} x {batch} takes {1 - plain:.2f} of the memory of {batch} in fp32 and {1 - saved:.2f} in "
        f"bf16; {TIMES * batch} at once {at_once:.2f} in fp32. Without accumulation bf16 fits {looks[0]['fits_bf16']} "
        f"at once where fp32 fits {batch}.",
    )


def time_claim(whole: Sequence[Outcome]) -> Claim:
    """For the same tokens; on a CPU the share of mixed precision says nothing of a GPU's."""
    looks = [one.after for one in whole]
    plain, both = (mean_of([1 - saving(look, precision) for look in looks]) for precision in ("fp32", "bf16"))
    on_cpu = looks[0]["device"] == "cpu"
    held = within(both, 0.0, 1 - SHORTER + ROUNDING)
    if held == "did not hold" and both.high < 1:
        held = "held in part"
    reason = " The gain of mixed precision is a GPU's: a CPU cannot tell it." if on_cpu else ""
    return Claim(
        text=f"mixed precision and accumulation shorten training by {100 * SHORTER:.0f} %",
        held="cannot be told" if on_cpu else held,
        found=f"the same tokens take {both.text('.2f')} of the time with both, and {plain.text('.2f')} with "
        f"accumulation alone, which saves updates and no product.{reason}",
    )
