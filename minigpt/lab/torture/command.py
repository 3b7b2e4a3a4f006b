"""The command line of scripts/torture_resume.py."""

import argparse
import json
import runpy
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from minigpt.lab.torture import seccomp
from minigpt.lab.torture.campaign import Campaign, campaign
from minigpt.lab.torture.cases import Case, write_workshop
from minigpt.lab.torture.life import Lived, Wrong
from minigpt.lab.torture.matrix import CASES, COMPILED
from minigpt.lab.torture.points import Stretch, Tried, all_points
from minigpt.lab.torture.report import as_json, by_case, by_place, by_scene, points_as_json
from minigpt.lab.torture.scenes import scenes


def main(description: str | None) -> int:
    """Runs it; 0: every run was bit-equal, 1: one was not, 2: a mistake in what was asked."""
    given = _parser(description).parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="torture_"))).absolute()
    if folder.is_dir() and any(folder.iterdir()):
        return _refused(f"--folder {folder} is not empty; choose another, or empty it")
    try:
        return (_killed_at_points if given.points or given.power_loss else _killed_at_random)(given, folder)
    except Wrong as wrong:
        return _refused(str(wrong))


def _killed_at_random(given: argparse.Namespace, folder: Path) -> int:
    cases = [
        _with_defect(case, given.plant)
        for case in (*CASES, COMPILED)
        if (given.only or "").lower() in case.name.lower()
    ]
    if not cases:
        return _refused(f"--only {given.only}: there is no such training")
    if refusal := seccomp.refusal():
        print(f"without kills at file calls: {refusal}")
    asked = Campaign(
        cases,
        folder,
        given.kills,
        given.minutes,
        given.seed,
        given.processes,
        given.fresh_share,
        holds_up=refusal is None,
    )
    lives = campaign(asked, partial(_tell, time.monotonic()))
    print("\n".join(["", *by_place(lives), "", *by_case(lives)]))
    _write(given.output, as_json(lives))
    wrong = [
        f"{life.case}, seed {life.seed}: {life.wrong}\n  in {life.folder}" for life in lives if life.wrong
    ]
    return _judged(wrong, folder)


def _killed_at_points(given: argparse.Namespace, folder: Path) -> int:
    if refusal := seccomp.refusal():
        return _refused(refusal)
    workshop = folder / "workshop"
    write_workshop(workshop)
    found = [
        replace(scene, case=_with_defect(scene.case, given.plant))
        for scene in scenes(workshop, folder / "straight", given.only or "")
    ]
    if not found:
        return _refused(f"--only {given.only}: there is no such command")
    points = all_points(
        found,
        folder / "points",
        stretch=Stretch(given.first, given.last, given.every),
        processes=given.processes,
        power_loss=given.power_loss,
        tell=_tell_point,
    )
    print("\n".join(["", *by_scene(points)]))
    _write(given.output, points_as_json(points))
    wrong = [
        f"{each.scene}, file call {each.point.number} ({each.call}): {each.wrong}\n  in {each.folder}"
        for each in points
        if each.wrong
    ]
    return _judged(wrong, folder)


def _judged(wrong: list[str], folder: Path) -> int:
    if not wrong:
        shutil.rmtree(folder)
        return 0
    for text in wrong:
        print(f"NOT EQUAL  {text}")
    print(f"straight runs: {folder / 'straight'}")
    return 1


def _tell(began: float, story: Lived, blows: int) -> None:
    met = ", ".join(each.place for each in story.struck)
    verdict = "equal" if story.wrong is None else f"WRONG: {story.wrong}"
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:6.1f} min {blows:5d} blows  {verdict}  {story.case} [{story.seed}]: {met}", flush=True)


def _tell_point(tried: Tried) -> None:
    verdict = "well" if tried.wrong is None else f"WRONG: {tried.wrong}"
    print(f"{tried.scene} {tried.point.number:4d}  {verdict}  {tried.place}: {tried.call}", flush=True)


def _with_defect(case: Case, defect: Path | None) -> Case:
    """The case, with a Python file run first in each of its processes that are not the straight run's own."""
    if defect is None:
        return case
    text = str(defect.absolute())
    return replace(case, prelude=partial(_run_file, text))


def _run_file(path: str) -> None:
    runpy.run_path(path)


def _write(output: Path | None, content: dict[str, object]) -> None:
    if output is not None:
        output.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _refused(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kills", type=int, default=300, metavar="N", help="blows in all (default: 300)")
    add("--minutes", type=float, metavar="M", help="stop after this many, too")
    add("--only", metavar="TEXT", help="only trainings (or, with --points, commands) with this in their name")
    add("--seed", default="0", help="all choices are drawn from it (default: 0)")
    add("--processes", type=int, default=4, metavar="P", help="runs at a time (default: 4)")
    add("--fresh-share", type=float, default=0.1, metavar="F", help="of processes started anew, not forked")
    add("--points", action="store_true", help="instead, kill a few commands at each call that changes a file")
    add("--power-loss", action="store_true", help="the same, and what was not forced to the disk is gone too")
    add("--every", type=int, default=1, metavar="K", help="only each K-th of these calls (default: 1)")
    add("--from", type=int, default=1, dest="first", metavar="N", help="from the N-th on (default: 1)")
    add("--to", type=int, dest="last", metavar="N", help="up to the N-th (default: the last)")
    add("--folder", type=Path, help="work here (default: a temporary folder, kept if something is wrong)")
    add("--output", type=Path, metavar="FILE", help="write everything as JSON")
    add("--plant", type=Path, metavar="FILE", help="Python to run first in each process: see a defect found")
    return parser
