"""An experiment's results on disk and for the reader."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt.atomic import write_text_atomically
from minigpt.errors import MissingExtraError
from minigpt.lab.experiments.experiment import Claim, Experiment, Results
from minigpt.lab.experiments.table import Table
from minigpt.lab.where import all_of


def check_drawing() -> None:
    """Before hours of training, not after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("the plot (leave it out with --no-plot)", "matplotlib", "lab") from error
    # No window: it must work where there is no screen.
    matplotlib.use("Agg")


def write_results(
    experiment: Experiment, results: Results, folder: Path, command: str, *, with_plot: bool
) -> str:
    """report.md, results.json, a CSV a table and plot.png in `folder`; the text of the report."""
    tables, claims = experiment.tables(results), experiment.claims(results)
    text = report(experiment, tables, claims, results, command)
    write_text_atomically(folder / "report.md", text + "\n")
    for number, table in enumerate(tables, 1):
        name = "table.csv" if len(tables) == 1 else f"table_{number}.csv"
        write_text_atomically(folder / name, table.csv())
    found: dict[str, Any] = {
        "experiment": experiment.name,
        "command": command,
        "where": _where(results),
        "tables": [table.plain() for table in tables],
        "claims": [asdict(claim) for claim in claims],
    }
    write_text_atomically(folder / "results.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if with_plot:
        draw(experiment, results, folder / "plot.png")
    return text


def report(
    experiment: Experiment, tables: Sequence[Table], claims: Sequence[Claim], results: Results, command: str
) -> str:
    """Question, tables, what became of each claim, and what was run where."""
    runs = sum(len(found) for found in results.values())
    lines = [f"# lab {experiment.name}: {experiment.question}", ""]
    for table in tables:
        lines += [table.markdown(), ""]
    lines += [experiment.definitions, ""]
    for claim in claims:
        lines += [f"- Claim: {claim.text}. {claim.held[0].upper()}{claim.held[1:]}: {claim.found}"]
    lines += ["", f"{runs} training{'s' if runs != 1 else ''} by `{command}`. {_where(results)}."]
    return "\n".join(lines)


def _where(results: Results) -> str:
    return all_of(one.where for found in results.values() for one in found)


def draw(experiment: Experiment, results: Results, path: Path) -> None:
    """The experiment's figure, in the format that the file's suffix names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=experiment.figure_inches, layout="constrained")
    experiment.draw(results, figure)
    figure.savefig(path, dpi=120)
