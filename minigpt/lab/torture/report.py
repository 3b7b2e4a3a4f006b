"""What the lives came to, as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from minigpt.lab.torture.life import Lived
from minigpt.lab.torture.points import Tried


def by_place(lives: Sequence[Lived]) -> list[str]:
    """A row for each place that blows met: how many, and what became of the runs."""
    struck: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for life in lives:
        for each in life.struck:
            struck[each.place] += 1
            killed[each.place] += each.killed
            wrong[each.place] += life.wrong is not None
    rows = [
        (place, str(number), str(killed[place]), str(number - wrong[place]), str(wrong[place]))
        for place, number in struck.most_common()
    ]
    total = tuple(str(sum(int(row[column]) for row in rows)) for column in range(1, 5))
    return table(("struck in", "blows", "SIGKILL", "bit-equal after", "not"), [*rows, ("all", *total)])


def by_case(lives: Sequence[Lived]) -> list[str]:
    """A row for each kind of training."""
    rows = []
    for case in dict.fromkeys(life.case for life in lives):
        own = [life for life in lives if life.case == case]
        blows = sum(len(life.struck) for life in own)
        equal = sum(life.wrong is None for life in own)
        rows.append((case, str(len(own)), str(blows), str(equal), str(len(own) - equal)))
    return table(("training", "runs", "blows", "bit-equal", "not"), rows)


def by_scene(points: Sequence[Tried]) -> list[str]:
    """A row for each command that was killed at its file calls."""
    rows = []
    for scene in dict.fromkeys(each.scene for each in points):
        own = [each for each in points if each.scene == scene]
        killed, wrong = sum(each.reached for each in own), sum(each.wrong is not None for each in own)
        rows.append((scene, str(len(own)), str(killed), str(len(own) - wrong), str(wrong)))
    total = tuple(str(sum(int(row[column]) for row in rows)) for column in range(1, 5))
    return table(("killed", "crash points", "reached", "all well after", "not"), [*rows, ("all", *total)])


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under their titles, in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def points_as_json(points: Sequence[Tried]) -> dict[str, Any]:
    """Everything about crash points, for programs."""
    wrong = sum(each.wrong is not None for each in points)
    return {"points": len(points), "wrong": wrong, "tried": [asdict(each) for each in points]}


def as_json(lives: Sequence[Lived]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "runs": len(lives),
        "blows": sum(len(life.struck) for life in lives),
        "wrong": sum(life.wrong is not None for life in lives),
        "lives": [asdict(life) for life in lives],
    }
