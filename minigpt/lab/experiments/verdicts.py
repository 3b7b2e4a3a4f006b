"""Whether the monitor's verdict and the blow-ups agree: a column of every experiment."""

from collections.abc import Callable, Iterable, Sequence

from minigpt.lab.experiments.experiment import Claim, Results
from minigpt.lab.experiments.outcome import WORTH, Outcome

SHOWN = 6
"""Wrong verdicts that a claim names."""
NEAR = 0.05
"""Nats around the line between a run that learnt nothing and the others, where either verdict is right: a final loss,
the mean of a few batches, is no surer."""


def verdict_text(found: Sequence[Outcome]) -> str:
    """How many runs are healthy, to be watched, sick; and what is named most in the last two."""
    counts = {health: sum(one.health == health for one in found) for health in ("healthy", "watch", "sick")}
    said = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
    named = _most_named(found)
    return f"{said} ({named})" if named else said


Broken = Callable[[Outcome], str | None]
"""What is wrong with a run, in words; None: nothing."""


def blown_up(one: Outcome) -> str | None:
    """Whether it blew up, and how."""
    return None if one.blew_up is None else f"blew up ({one.blew_up})"


def in_doubt(one: Outcome, broken: Broken = blown_up) -> bool:
    """Whether the run is not broken, and ended too near the line to say whether it learnt nothing."""
    return broken(one) is None and abs(one.final_loss - (one.unigram_loss - WORTH)) < NEAR


def disagreements(found: Iterable[Outcome], broken: Broken = blown_up) -> list[str]:
    """Runs whose verdict does not fit, each in words.

    One that is broken must be called sick, one that learnt nothing anything but healthy, no other sick; one `in_doubt`
    may be called what it is.
    """
    lines = []
    for one in found:
        if in_doubt(one, broken):
            continue
        reason = broken(one)
        if reason is not None:
            fits, what = one.health == "sick", reason
        elif one.learnt_nothing:
            fits, what = one.health != "healthy", "learnt nothing"
        else:
            fits, what = one.health != "sick", "trained"
        if not fits:
            named = f": {', '.join(one.findings)}" if one.findings else ""
            lines.append(f"{one.arm}, seed {one.seed}, {what} and was called {one.health}{named}")
    return lines


def verdict_claim(results: Results, broken: Broken = blown_up, called: str = "the blown-up runs") -> Claim:
    """The monitor's own, for every experiment; `called`: what the broken runs are called."""
    runs = [one for found in results.values() for one in found]
    judged, more = [one for one in runs if not in_doubt(one, broken)], ""
    if len(judged) < len(runs):
        more = f" {len(runs) - len(judged)} more ended within {NEAR:g} nats of that line."
    if all(one.learnt_nothing or broken(one) is not None for one in judged):
        judged = [one for one in runs if broken(one) is not None]
        kind = "others" if judged else "runs"
        more = f" None of the {kind} learnt more than the tokens' frequencies: they may be too short to tell."
    text = f"the monitor calls {called} sick, none healthy that learnt nothing, and no other sick (ours)"
    return claim_of_agreement(
        text, disagreements(judged, broken), len(judged), more if len(judged) < len(runs) else ""
    )


def claim_of_agreement(text: str, wrong: Sequence[str], runs: int, more: str = "") -> Claim:
    """Of `runs` verdicts those that were `wrong`, each in words; half of them are too many to hold in part."""
    if not runs:
        return Claim(text=text, held="cannot be told", found=more.strip() or "there was no run.")
    return Claim(
        text=text,
        held="held" if not wrong else "held in part" if len(wrong) < runs / 2 else "did not hold",
        found="; ".join([f"{runs - len(wrong)} of {runs} right", *wrong[:SHOWN]]) + f".{more}",
    )


def _most_named(found: Sequence[Outcome]) -> str:
    names = [name for one in found for name in one.findings]
    ordered = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ", ".join(ordered[:2])
