#!/usr/bin/env python3
"""Kills training hundreds of times, resumes it each time, and compares the end with a run that nobody disturbed.

    python scripts/torture_resume.py                                # 300 blows, some 15 minutes on four cores
    python scripts/torture_resume.py --kills 2000 --processes 8     # through the night
    python scripts/torture_resume.py --only fp16 --seed 7           # some of the trainings

SIGKILL, SIGTERM and Ctrl-C come at random moments: after a time, in a certain place (an evaluation, retention), or at
the n-th call that changes a file, half of the write included; often again while the resume is under way. Compared are
weights, optimizer, scaler, random and monitor states, position, every kept checkpoint, metrics.jsonl, the standing
events, and each TensorBoard series as TensorBoard loads it. Where something differs, it is named with its seed, the
folders stay, and the exit code is 1.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import minigpt.cli.main  # what each process that is forked from this one runs  # noqa: F401
from minigpt.lab.torture.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
