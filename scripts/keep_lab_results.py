#!/usr/bin/env python3
"""Keep full runs of the lab's experiments in the documentation: their reports and plots, and a page of all claims.

    python scripts/keep_lab_results.py checkpoints/lab_*
    python scripts/keep_lab_results.py checkpoints/lab_norm --results elsewhere/

Nothing is trained or changed: what the commands wrote is copied, and README.md beside it is made of all that is there.
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "minigpt" / "lab" / "results"
PLOTS = ("plot.png", "heatmap.png")
CLAIM = re.compile(r"^- Claim: (.*?)\. (Held in part|Held|Did not hold|Cannot be told): ", re.MULTILINE)


def keep(folder: Path, results: Path) -> None:
    """Copy the report and the plot in `folder` to `results`, under the folder's name."""
    report = (folder / "report.md").read_text(encoding="utf-8").rstrip("\n")
    if not report.startswith("# lab "):
        raise ValueError("its report.md is another one")
    name = folder.resolve().name.removeprefix("lab_")
    for plot in PLOTS:
        if (folder / plot).exists():
            shutil.copyfile(folder / plot, results / f"{name}.png")
            report += f"\n\n![plot]({name}.png)"
    (results / f"{name}.md").write_text(report + "\n", encoding="utf-8")


def page(results: Path) -> str:
    """Every claim and what became of it, an experiment after the other."""
    lines = ["# What the lab found", ""]
    lines += ["Made by `scripts/keep_lab_results.py` of the reports beside it; the figures stand there.", ""]
    counts = Counter[str]()
    for path in sorted(results.glob("*.md")):
        report = path.read_text(encoding="utf-8")
        claims = CLAIM.findall(report) if path.name != "README.md" else []
        if not claims:
            continue
        command, where = re.findall(r"by (`minigpt lab .*`)\. (.*)", report)[-1]
        lines += [
            f"**[{path.stem}]({path.stem}.md)**: {command}. {where}",
            "",
            "| claim | here |",
            "|---|---|",
        ]
        lines += [f"| {text.replace('|', '/')} | {held.lower()} |" for text, held in claims]
        lines += [""]
        counts.update(held.lower() for _, held in claims)
    said = ", ".join(f"{count} {held}" for held, count in counts.most_common())
    return "\n".join([*lines, f"{counts.total()} claims: {said}."]) + "\n"


def main() -> int:
    """The exit code: 2 where a folder has no results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="checkpoints/lab_NAME")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"default: {RESULTS.relative_to(ROOT)}")
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    for folder in given.folders:
        try:
            keep(folder, given.results)
        except (OSError, ValueError) as error:
            print(f"{folder} has no report of a lab command: {error}", file=sys.stderr)
            return 2
    (given.results / "README.md").write_text(page(given.results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
