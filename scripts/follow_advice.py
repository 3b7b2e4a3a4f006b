#!/usr/bin/env python3
"""Does following the monitor's advice help? Tiny runs with a fault, the advice they print, and the runs that follow it.

    python scripts/follow_advice.py                         # all stories, two seeds: about 15 minutes on two cores
    python scripts/follow_advice.py --stories clip eps --seeds 0 --folder runs/

A story is a mistake that a user makes: a setting, or a broken file among the texts. It is trained by `minigpt train`,
as a user would. The first anomaly on its console (where nothing interrupted it: in `minigpt diagnose`) is read, and its
first `--set` obeyed, or the document that it names taken away, in a new run from the start. If that run prints an
anomaly, it is obeyed in turn. `repaired` is the share of the harm, in validation loss, that is gone in the end.
"""

import argparse
import importlib.util
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.advice.life import lived
from minigpt.lab.advice.stories import STORIES
from minigpt.lab.advice.table import report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stories", nargs="*", metavar="TEXT", help="only those with one of these in their name"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], metavar="N", help="default: 0 1")
    parser.add_argument("--processes", type=int, default=2, help="stories at a time (default: 2)")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: they are thrown away)")
    given = parser.parse_args()
    wanted = given.stories or [""]
    stories = [story for story in STORIES if any(text in story.name for text in wanted)]
    if not stories:
        parser.error(f"no such story; there are: {'; '.join(story.name for story in STORIES)}")
    with tempfile.TemporaryDirectory() as thrown_away, ThreadPoolExecutor(given.processes) as pool:
        folder = (given.folder or Path(thrown_away)).absolute()
        lives = [pool.submit(lived, story, seed, folder) for story in stories for seed in given.seeds]
        print("\n".join(report([life.result() for life in lives])))


if __name__ == "__main__":
    main()
