#!/usr/bin/env python3
"""A disk that refuses, everywhere: fails each file-system call of a run with each error, and shows what is lost then.

    python scripts/torture_disk.py --every 50               # a sample, minutes
    python scripts/torture_disk.py --processes 4            # all of them, hours
    python scripts/torture_disk.py --errors ENOSPC EIO --scenes resume

A try is a tiny run in which one call fails (or all from one on: a disk that stays full), with both values of
checkpoint.on_write_error; then the same run is started again on a disk that works. Nothing is lost when no checkpoint
that was whole is gone, none is half there, the run ended by itself or was refused in one line, no half file stays, and
the second start ends with the weights, optimizer, random state and metrics of a run that met no fault, to the bit.
Exits with 1 if anything was lost.
"""

import argparse
import errno
import importlib.util
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.torture_disk.faulty_disk import REFUSALS
from minigpt.lab.torture_disk.scenes import SCENES
from minigpt.lab.torture_disk.sweep import Case, Verdict, cases, try_cases
from minigpt.lab.torture_disk.table import losses, table

CHUNK = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [errno.errorcode[number] for number in REFUSALS]
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th case (default: 1)")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="begin with case K (default: 0)")
    parser.add_argument("--errors", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--scenes", nargs="*", default=[""], metavar="TEXT", help="with one of these in their name"
    )
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    errors = [getattr(errno, name) for name in given.errors]
    chunks: list[list[Case]] = []
    for scene in SCENES:
        if any(text in scene.name for text in given.scenes):
            chosen = list(cases(scene, errors=errors, every=given.every, first=given.first))
            chunks += [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    print(f"{sum(map(len, chunks))} tries", file=sys.stderr)
    verdicts: list[Verdict] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=context) as pool:
        for found in pool.map(tried, chunks):
            verdicts += found
            print("\n".join([f"{len(verdicts)} tried", *losses(found)]), file=sys.stderr, flush=True)
    print(table(verdicts))
    sys.exit(bool(losses(verdicts)))


def tried(chunk: list[Case]) -> list[Verdict]:
    return list(try_cases(chunk))


if __name__ == "__main__":
    main()
