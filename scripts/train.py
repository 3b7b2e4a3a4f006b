#!/usr/bin/env python3
"""Training through a script: the same as `minigpt train`, which has the logic and all its options."""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MODES = ("pretrain",)


def without_mode(arguments: list[str]) -> list[str]:
    """`arguments` without `--mode pretrain`, the one mode there is; exits with code 2 on another."""
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--mode":
            mode = next(words, "nothing")
        elif word.startswith("--mode="):
            mode = word.removeprefix("--mode=")
        else:
            rest.append(word)
            continue
        if mode not in MODES:
            print(f"error: --mode {mode}: there is no such mode; use --mode pretrain", file=sys.stderr)
            sys.exit(2)
    return rest


if __name__ == "__main__":
    if importlib.util.find_spec("minigpt") is None:
        sys.path.insert(0, str(REPOSITORY))
    from minigpt.cli.main import run

    sys.exit(run(["train", *without_mode(sys.argv[1:])]))
