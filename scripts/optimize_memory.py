#!/usr/bin/env python3
"""The memory report of a preset: the same as `minigpt plan`, which has the logic."""

import argparse
import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def arguments() -> list[str]:
    """The command line for `minigpt`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--analyze", action="store_true", required=True, help="print the memory report")
    parser.add_argument("--config", default="medium", help="a preset's name or a YAML file (default: medium)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    given = parser.parse_args()
    return ["plan", "--config", given.config, *(word for value in given.set for word in ("--set", value))]


if __name__ == "__main__":
    if importlib.util.find_spec("minigpt") is None:
        sys.path.insert(0, str(REPOSITORY))
    from minigpt.cli.main import run

    sys.exit(run(arguments()))
