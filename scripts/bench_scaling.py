#!/usr/bin/env python3
"""What a token costs: over the steps of a long run, and as depth, width and context grow.

    python scripts/bench_scaling.py --plot scaling.svg        # eager, a few minutes
    python scripts/bench_scaling.py --compile on --rounds 5 --steps 5 --output scaling.json
    python scripts/bench_scaling.py --depths 4 8 16 32 --contexts 256 4096

Each shape is a real `minigpt train` in a process of its own, held between its steps; the shapes of a series take turns.
`predicted` is the cost that follows from the FLOPs alone, at the pace of the series' largest shape: what is small is
dearer than that, because it keeps the machine less busy, and a figure that grows along a series is a kernel that does
not scale. What concerns CUDA has not been run on a GPU yet.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.scaling.command import run
from minigpt.lab.script import run_script

if __name__ == "__main__":
    run_script(run, __doc__)
