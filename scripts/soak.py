#!/usr/bin/env python3
"""Does anything grow in a long run that must not? Exit code 1 if so.

python scripts/soak.py                             # 20,000 real steps of a tiny model with everything on
python scripts/soak.py --steps 2000 --trace        # and where the memory went (slow)
python scripts/soak.py --simulate 1000000          # the records of a million steps: sizes, and how fast they open
"""

import argparse
import importlib.util
import sys
import tempfile
import tracemalloc
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.soak.live import soak
from minigpt.lab.soak.marks import growth
from minigpt.lab.soak.simulated import simulate


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20_000, help="real steps (default: 20000)")
    parser.add_argument("--marks", type=int, default=20, help="how often to look (default: 20)")
    parser.add_argument("--trace", action="store_true", help="trace where memory is allocated")
    parser.add_argument(
        "--simulate", type=int, metavar="N", help="write the records of N made-up steps instead"
    )
    parser.add_argument("--folder", type=Path, help="keep the files here (default: they are thrown away)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of the run"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        if given.simulate:
            found = simulate(folder, given.simulate)
        else:
            if given.trace:
                tracemalloc.start()
            found = growth(soak(folder, given.steps, max(given.steps // given.marks, 1), given.set))
    print("\n".join([f"GROWS: {line}" for line in found] or ["nothing grows"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
