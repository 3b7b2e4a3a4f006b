"""Whether the monitor's verdict and the blow-ups agree: a column of every experiment."""

from collections.abc import Iterable, Sequence

from minigpt.lab.experiments.experiment import Claim, Results
from minigpt.lab.experiments.outcome import Outcome


def verdict_text(found: Sequence[Outcome]) -> str:
    """How many runs are healthy, to be watched, sick; and what is named most in the last two."""
    counts = {health: sum(one.health == health for one in found) for health in ("healthy", "watch", "sick")}
    said = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
    named = _most_named(found)
    return f"{said} ({named})" if named else said


def disagreements(found: Iterable[Outcome]) -> list[str]:
    """Blown-up runs that were not called sick, and runs called sick that did not blow up: each in words."""
    lines = []
    for one in found:
        reason = one.blew_up
        if (reason is not None) != (one.health == "sick"):
            what = "did not blow up" if reason is None else f"blew up ({reason})"
            named = f": {', '.join(one.findings)}" if one.findings else ""
            lines.append(f"{one.arm}, seed {one.seed}, {what} and was called {one.health}{named}")
    return lines


def verdict_claim(results: Results) -> Claim:
    """The monitor's own, for every experiment."""
    wrong = disagreements(one for found in results.values() for one in found)
    runs = sum(len(found) for found in results.values())
    return Claim(
        text="the monitor calls the blown-up runs sick, and no other (ours)",
        held="held" if not wrong else "held in part" if len(wrong) < runs / 2 else "did not hold",
        found="all of them right."
        if not wrong
        else f"{runs - len(wrong)} of {runs} right; {'; '.join(wrong[:4])}.",
    )


def _most_named(found: Sequence[Outcome]) -> str:
    names = [name for one in found for name in one.findings]
    ordered = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ", ".join(ordered[:2])
