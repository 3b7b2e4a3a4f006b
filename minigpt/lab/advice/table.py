"""What following the advice was worth, as a table in Markdown."""

import statistics
from collections.abc import Sequence

from minigpt.lab.advice.life import Outcome, Trained


def report(outcomes: Sequence[Outcome]) -> list[str]:
    """A row a story; losses are means over its seeds."""
    titles = (
        "fault",
        "likely cause, as printed",
        "right",
        "advice followed",
        "with it",
        "after",
        "healthy",
        "repaired",
    )
    rows = [titles, ("---",) * len(titles)]
    for story in dict.fromkeys(outcome.story for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.story == story]
        causes = dict.fromkeys(
            "nothing" if each.faulty.told is None else each.faulty.told.cause for each in own
        )
        advice = dict.fromkeys(", then ".join(each.followed) or "none" for each in own)
        row = (
            story.name,
            "; ".join(causes),
            f"{sum(outcome.is_right for outcome in own)} of {len(own)}",
            "; ".join(f"`{text}`" for text in advice),
            _mean([outcome.faulty for outcome in own]),
            _mean([outcome.last for outcome in own]),
            _mean([outcome.healthy for outcome in own]),
            ", ".join(f"{outcome.repaired:.0%}" for outcome in own),
        )
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _mean(runs: Sequence[Trained]) -> str:
    if any(run.was_stopped for run in runs):
        return "stopped"
    return f"{statistics.mean(run.loss for run in runs):.2f}"
