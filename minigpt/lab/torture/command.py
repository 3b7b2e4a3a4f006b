"""The command line of scripts/torture_resume.py."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from minigpt.lab.torture.campaign import Campaign, campaign
from minigpt.lab.torture.life import Lived
from minigpt.lab.torture.matrix import CASES, COMPILED
from minigpt.lab.torture.report import as_json, by_case, by_place


def main(description: str | None) -> int:
    """Runs it; 0: every run was bit-equal, 1: one was not, 2: a mistake in what was asked."""
    given = _parser(description).parse_args()
    cases = [case for case in (*CASES, COMPILED) if (given.only or "").lower() in case.name.lower()]
    if not cases:
        print(f"error: --only {given.only}: there is no such training", file=sys.stderr)
        return 2
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="torture_"))).absolute()
    asked = Campaign(
        cases, folder, given.kills, given.minutes, str(given.seed), given.processes, given.fresh_share
    )
    began = time.monotonic()
    lives = campaign(asked, lambda story, blows: _tell(story, blows, began))
    print("\n".join(["", *by_place(lives), "", *by_case(lives)]))
    if given.output is not None:
        given.output.write_text(json.dumps(as_json(lives), indent=1), encoding="utf-8")
    wrong = [life for life in lives if life.wrong is not None]
    if not wrong:
        shutil.rmtree(folder)
        return 0
    for life in wrong:
        print(f"NOT EQUAL  {life.case}, seed {life.seed}: {life.wrong}\n  in {life.folder}")
    print(f"straight runs: {folder / 'straight'}")
    return 1


def _tell(story: Lived, blows: int, began: float) -> None:
    met = ", ".join(f"{each.place}" for each in story.struck)
    verdict = "equal" if story.wrong is None else f"WRONG: {story.wrong}"
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:6.1f} min {blows:5d} blows  {verdict:6}  {story.case} [{story.seed}]: {met}", flush=True)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kills", type=int, default=300, metavar="N", help="blows in all (default: 300)")
    add("--minutes", type=float, metavar="M", help="stop after this many, too")
    add("--only", metavar="TEXT", help="only trainings with this in their name")
    add("--seed", default="0", help="all choices are drawn from it (default: 0)")
    add("--processes", type=int, default=4, metavar="P", help="runs at a time (default: 4)")
    add("--fresh-share", type=float, default=0.1, metavar="F", help="of processes started anew, not forked")
    add("--folder", type=Path, help="work here (default: a temporary folder, kept if something is wrong)")
    add("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser
