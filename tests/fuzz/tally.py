"""Cases tried one after the other, and counted: for the script's table and for the tests."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from tests.fuzz.cases import KINDS, Case, Recipe
from tests.fuzz.judge import complaint_problem, judged_load
from tests.fuzz.lines import any_line
from tests.fuzz.trial import judged_line, stopping_after, tried

RESUMED_EVERY = 4


@dataclass
class Tally:
    """What became of the cases of each kind, and every defect."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, defect: str | None) -> None:
        """Counts one case."""
        self.counts.setdefault(kind, Counter())["defect" if defect else outcome] += 1
        if defect:
            self.defects.append(f"{kind}: {defect}")

    def table(self) -> str:
        """Markdown: a row a kind."""
        columns = ("loaded", "trained", "refused", "ended", "defect")
        rows = [f"| kind | tried | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
        total: Counter[str] = sum(self.counts.values(), Counter())
        for kind, counts in [*sorted(self.counts.items()), ("all", total)]:
            cells = [str(counts[column]) for column in columns]
            rows.append(f"| {kind} | {sum(counts.values())} | {' | '.join(cells)} |")
        return "\n".join(rows)


def tried_case(
    case: Case, base: RunConfig, folder: Path, *, trains: bool, resumed: bool
) -> tuple[str, str | None]:
    """(outcome, what is wrong with it): loaded, and trained if that is asked for; or refused in words."""
    try:
        outcome, defect = judged_load(case, base)
        if outcome == "refused" or defect is not None or not trains:
            return "loaded" if outcome == "accepted" else outcome, defect
        file = folder / "case.yaml"
        file.write_bytes(case.yaml)
        if not case.asked and not _is_of_its_size(load_config(str(file), case.overrides).config, base):
            return "loaded", None
        outcome, said = tried(file, case.overrides, folder / "case", resumed=resumed)
        return outcome, None if outcome == "trained" else complaint_problem(case, said or "")
    except AssertionError as wrong:
        return "defect", str(wrong)
    except Exception as error:
        return "defect", f"{type(error).__name__}: {error}"


def _is_of_its_size(config: RunConfig, base: RunConfig) -> bool:
    """Whether an accident left the tiny corpus and model in it: the defaults would train for minutes."""
    return (config.model, config.data, config.training) == (base.model, base.data, base.training)


def fuzz_configurations(
    recipe: Recipe, base: RunConfig, folder: Path, *, number: int, first_seed: int, trains: bool, until: float
) -> Tally:
    """`number` cases of each kind, or as many as there is time for."""
    tally = Tally()
    for make in KINDS:
        count = 0

        def judge(case: Case) -> None:
            nonlocal count
            count += 1
            resumed = count % RESUMED_EVERY == 0
            outcome, defect = tried_case(case, base, folder, trains=trains, resumed=resumed)
            tally.add(case.kind, outcome, f"{defect} <- {case.asked or case.overrides}" if defect else None)

        _drawn(make(recipe), judge, number, first_seed, until)
    return tally


def fuzz_lines(folder: Path, *, number: int, first_seed: int, until: float) -> Tally:
    """`number` command lines of several options each."""
    tally = Tally()

    def judge(line: list[str]) -> None:
        with stopping_after(2):
            defect = judged_line(line)
        tally.add(f"minigpt {line[0]}", "ended", f"{defect} <- {line}" if defect else None)

    _drawn(any_line(), judge, number, first_seed, until)
    return tally


def _drawn(
    values: st.SearchStrategy[Any],
    judge: Callable[..., None],
    number: int,
    first_seed: int,
    until: float,
) -> None:
    @seed(first_seed)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(values)
    def draw(value: object) -> None:
        if time.monotonic() < until:
            judge(value)

    draw()
