#!/usr/bin/env python3
"""Thousands of wrong, odd and right configurations and command lines: each trains, or is refused in one clear line.

    python scripts/fuzz_config.py                                    # 300 of each kind, and 300 command lines
    python scripts/fuzz_config.py --number 2000 --seed 7 --minutes 60
    python scripts/fuzz_config.py --number 5000 --no-training        # loading alone: quick

The cases are made from the configuration's JSON schema and from the commands' own options, so that a new key or option
is tried without a line here. Needs minigpt[dev]. Exit code 1 when there was a defect.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.fuzz.bench import bench
from tests.fuzz.recipe import recipe_in
from tests.fuzz.tally import fuzz_configurations, fuzz_lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=300, help="cases of each kind (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds, other cases (default: 0)")
    parser.add_argument("--minutes", type=float, default=600.0, help="then no more are tried (default: 600)")
    parser.add_argument("--no-training", action="store_true", help="configurations are only loaded")
    parser.add_argument("--no-lines", action="store_true", help="no command lines")
    given = parser.parse_args()
    began = time.monotonic()
    until = began + 60 * given.minutes
    with tempfile.TemporaryDirectory() as thrown_away, bench(Path(thrown_away)) as workshop:
        tallies = [
            fuzz_configurations(
                recipe_in(workshop.folder),
                workshop.config(),
                workshop.folder,
                number=given.number,
                first_seed=given.seed,
                trains=not given.no_training,
                until=until,
            )
        ]
        if not given.no_lines:
            tallies.append(
                fuzz_lines(workshop.folder, number=given.number, first_seed=given.seed, until=until)
            )
    for tally in tallies:
        print(tally.table(), end="\n\n")
        for defect in tally.defects:
            print(f"DEFECT {defect[:600]}")
    print(f"{time.monotonic() - began:.0f} s")
    return int(any(tally.defects for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
