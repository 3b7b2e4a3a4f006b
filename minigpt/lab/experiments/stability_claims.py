"""The users' claims on stable training, and what `lab stability` found."""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

from minigpt.lab.experiments.experiment import Claim, Held, Results
from minigpt.lab.experiments.intervals import Ratio, Share, mean_of
from minigpt.lab.experiments.norm_measures import variance_over_steps
from minigpt.lab.experiments.outcome import Outcome
from minigpt.lab.experiments.ratios import paired, ratio_of
from minigpt.lab.experiments.verdicts import verdict_claim

NONE, CLIPPING, WARMUP, ALL = "no measures", "clipping", "clipping + warm-up", "everything"
_CLAIMED = {NONE: (8, "NaN"), CLIPPING: (2, "2.3"), WARMUP: (0, "2.1"), ALL: (0, "1.9")}
"""Of ten runs, how many blow up, and the final loss: the users' table."""
FASTER = 10 / 7
"""Hours with clipping alone : hours with everything."""
PEAK, WAVES = 10.0, 9.0
"""Peaks that fall by 90 %; a variance from .81 to .09."""
TELLING = 0.6
"""The widest interval of a share that is called an answer: ten runs have one of at most .53, five of up to .65."""


def blow_ups(found: Sequence[Outcome]) -> Share:
    """How many of the runs blew up."""
    return Share(sum(one.blew_up is not None for one in found), len(found))


def sound(found: Sequence[Outcome]) -> list[Outcome]:
    """The runs that trained."""
    return [one for one in found if one.blew_up is None and not one.learnt_nothing]


def target_loss(results: Results) -> float:
    """The final loss of the worst arm, by its median over the runs that trained."""
    finals = [[one.final_loss for one in sound(found)] for found in results.values()]
    return max((statistics.median(values) for values in finals if values), default=math.nan)


def claims(results: Results) -> list[Claim]:
    """One a row of the users' table, then the order of the losses, then the monitor."""
    found = [_blow_up_claim(name, results[name]) for name in _CLAIMED if name in results]
    found += [_loss_claim(results), *_ratio_claims(results)]
    return [*found, verdict_claim(results)]


def _blow_up_claim(name: str, found: Sequence[Outcome]) -> Claim:
    """In part where only the failures of both kinds together are as many as claimed, or only the blow-ups are."""
    claimed = _CLAIMED[name][0]
    blown = blow_ups(found)
    failures = Share(len(found) - len(sound(found)), len(found))
    fits = [low <= claimed / 10 <= high for low, high in (blown.interval, failures.interval)]
    telling = all(high - low <= TELLING for low, high in (blown.interval, failures.interval))
    held: Held = "did not hold" if not any(fits) else "held in part" if not all(fits) else "held"
    return Claim(
        text=f"{name}: {claimed} of 10 runs blow up",
        held=held if telling else "cannot be told",
        found=f"{blown.text()} did; {failures.text()} did or learnt nothing.",
    )


def _loss_claim(results: Results) -> Claim:
    """The final losses fall from arm to arm, each time by more than chance; not where one rises so and none falls."""
    means = {name: mean_of([one.final_loss for one in found]) for name, found in results.items() if found}
    known = [(name, mean) for name, mean in means.items() if math.isfinite(mean.value)]
    steps = [
        (first.low > second.high, first.high < second.low) for (_, first), (_, second) in pairwise(known)
    ]
    falls, rises = [fall for fall, _ in steps], [rise for _, rise in steps]
    held: Held = "held in part" if any(falls) else "did not hold" if any(rises) else "cannot be told"
    if falls and all(falls):
        held = "held"
    said = ", ".join(f"{name} {mean.text()}" for name, mean in known)
    return Claim(
        text="with each measure the final loss is lower (NaN, 2.3, 2.1, 1.9)",
        held=held,
        found=f"{said or 'no run ended with a finite loss'}; intervals that do not touch count as lower.",
    )


def _ratio_claims(results: Results) -> list[Claim]:
    """The users' other figures, seed by seed; those whose arms were left out are left out."""
    target = target_loss(results)
    found = []
    if results.get(CLIPPING) and results.get(ALL):
        steps = [
            (one.steps_to(target), other.steps_to(target)) for one, other in paired(results, CLIPPING, ALL)
        ]
        known = [(float(first), float(second)) for first, second in steps if first and second]
        found.append(
            _ratio_claim(
                "with everything training takes 7 hours, with clipping alone 10",
                ratio_of(known),
                FASTER,
                f"steps to {'a loss' if math.isnan(target) else f'{target:.2f}'}, clipping : everything, where both "
                "came to it",
            )
        )
    if results.get(NONE) and results.get(CLIPPING):
        peaks = ratio_of([(_peak(one), _peak(other)) for one, other in paired(results, NONE, CLIPPING)])
        of = "the largest gradient norm of a run, before clipping, without measures : with clipping"
        found.append(_ratio_claim("clipping brings the peaks of the gradient down by 90 %", peaks, PEAK, of))
    if results.get(NONE) and results.get(ALL):
        pairs = paired(results, NONE, ALL)
        waves = ratio_of([(variance_over_steps(one), variance_over_steps(other)) for one, other in pairs])
        of = "the variance of the gradient's norm over the second half of a run, without measures : with everything"
        text = "Pre-Norm, AdamW and mixed precision bring the gradient's variance from 0.81 to 0.09"
        found.append(_ratio_claim(text, waves, WAVES, of))
    return found


def _peak(one: Outcome) -> float:
    return max((norm for norm in one.grad_norms if norm is not None), default=math.nan)


def _ratio_claim(text: str, ratio: Ratio, claimed: float, of: str) -> Claim:
    """In part where it is larger by more than chance, and by less than is claimed."""
    reaches = ratio.high >= claimed
    held: Held = "cannot be told"
    if ratio.is_larger:
        held = "held" if reaches else "held in part"
    elif ratio.count > 1 and not reaches:
        held = "did not hold"
    return Claim(text=text, held=held, found=f"{of}: {ratio.text()}, where {claimed:.3g} is claimed.")
