"""What a drill must reach, and whether it did."""

from dataclasses import dataclass

from minigpt.lab.drill.score import Score

ENOUGH = 5
"""Fewer slow faults than this have no median worth a target."""


@dataclass(frozen=True, slots=True)
class Target:
    """One number of a drill, and what was asked of it."""

    name: str
    value: float | None
    """None: nothing to judge by."""
    wanted: float
    at_least: bool

    @property
    def is_met(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.wanted if self.at_least else self.value <= self.wanted

    def line(self) -> str:
        shown = "-" if self.value is None else f"{self.value:.3g}"
        relation = "at least" if self.at_least else "at most"
        return f"{'met   ' if self.is_met else 'MISSED'}  {self.name}: {shown} ({relation} {self.wanted:g})"


def targets(score: Score) -> list[Target]:
    """The targets of the drill, in the order in which they matter: those that it has anything to judge by."""
    false = Target("false interruptions per 10,000 healthy steps", score.false_per_10k, 0.2, at_least=False)
    healthy = [false] if score.healthy_steps else []
    if not score.verdicts:
        return healthy
    abrupt, slow = score.delays(slow=False), score.delays(slow=True)
    found = [
        Target("recall", score.recall, 0.98, at_least=True),
        Target("right cause, first word", score.first_right, 0.95, at_least=True),
        Target("right cause, last word", score.final_right, 0.95, at_least=True),
        *healthy,
        Target("median delay of abrupt faults, steps", abrupt and abrupt[0], 3, at_least=False),
    ]
    if sum(verdict.slow for verdict in score.verdicts) >= ENOUGH:
        found.append(Target("median delay of slow faults, steps", slow and slow[0], 30, at_least=False))
    for other in score.baselines:
        found.append(Target(f"recall beyond that of {other.name}", score.recall, other.recall, at_least=True))
    return found
