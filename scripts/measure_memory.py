#!/usr/bin/env python3
"""How near the planned memory comes to what a training takes: trainings of all kinds, each in a process of its own.

    python scripts/measure_memory.py                          # all cases: about 15 minutes on four cores
    python scripts/measure_memory.py --unseen                 # other shapes than those that set the estimates
    python scripts/measure_memory.py --only compiled --keep runs/

Measured is the peak of the process less what it held before there was a model (Linux), on a GPU the peak of torch's
allocator. Exits with 1 where a prediction is further off than 10 % (5 % on a GPU).
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.distributed.device import resolve_device
from minigpt.errors import MiniGPTError
from minigpt.lab.memory.cases import CASES, UNSEEN
from minigpt.lab.memory.measure import measure
from minigpt.planning.plan import bytes_text

BOUND = {"cpu": 0.10, "cuda": 0.05}


def main() -> int:
    """The exit code: 1 where a prediction is out of bounds, 2 where a training failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--unseen", action="store_true", help="the shapes that set no estimate")
    parser.add_argument("--device", default="auto", help="cpu or cuda (default: auto)")
    parser.add_argument("--keep", type=Path, help="keep the runs here (default: they are thrown away)")
    parser.add_argument("--parts", action="store_true", help="print the predicted parts as well")
    given = parser.parse_args()
    device = resolve_device(given.device)
    if sys.platform != "linux" or device.type not in BOUND:
        print("error: memory can be measured on Linux, on a CPU or a CUDA GPU", file=sys.stderr)
        return 2
    bound, errors = BOUND[device.type], []
    print(f"{'case':52} {'predicted':>9} {'measured':>9} {'error':>7}")
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = (given.keep or Path(thrown_away)).absolute()
        for number, case in enumerate(UNSEEN if given.unseen else CASES):
            if given.only not in case.name:
                continue
            try:
                found = measure(case, folder / str(number), device.type)
            except MiniGPTError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            errors.append(found.predicted / found.peak - 1)
            sizes = f"{bytes_text(found.predicted):>9} {bytes_text(found.peak):>9}"
            print(f"{case.name:52} {sizes} {errors[-1]:+7.1%}", flush=True)
            if given.parts:
                for name, size in found.parts.items():
                    print(f"    {name:48} {bytes_text(size):>9}")
    if not errors:
        print(f"error: no case has {given.only!r} in its name", file=sys.stderr)
        return 2
    out = sum(abs(error) > bound for error in errors)
    worst = max(errors, key=abs)
    print(f"{len(errors)} cases, {out} further off than {bound:.0%}; the worst is {worst:+.1%}")
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
