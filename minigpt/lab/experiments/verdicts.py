"""Whether the monitor's verdict and the blow-ups agree: a column of every experiment."""

from collections.abc import Iterable, Sequence

from minigpt.lab.experiments.outcome import Outcome


def verdict_text(found: Sequence[Outcome]) -> str:
    """How many runs are healthy, to be watched, sick; and what is named most in the last two."""
    counts = {health: sum(one.health == health for one in found) for health in ("healthy", "watch", "sick")}
    said = ", ".join(f"{count} {health}" for health, count in counts.items() if count)
    named = _most_named(found)
    return f"{said} ({named})" if named else said


def disagreements(found: Iterable[Outcome]) -> list[str]:
    """Runs whose verdict does not fit, each in words.

    One that blew up must be called sick, one that learnt nothing anything but healthy, no other sick.
    """
    lines = []
    for one in found:
        if one.blew_up is not None:
            fits, what = one.health == "sick", f"blew up ({one.blew_up})"
        elif one.learnt_nothing:
            fits, what = one.health != "healthy", "learnt nothing"
        else:
            fits, what = one.health != "sick", "trained"
        if not fits:
            named = f": {', '.join(one.findings)}" if one.findings else ""
            lines.append(f"{one.arm}, seed {one.seed}, {what} and was called {one.health}{named}")
    return lines


def _most_named(found: Sequence[Outcome]) -> str:
    names = [name for one in found for name in one.findings]
    ordered = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ", ".join(ordered[:2])
