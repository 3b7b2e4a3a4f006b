#!/usr/bin/env python3
"""The way of the data, measured: tokenizing, what a step waits for its batches, opening a huge corpus.

    python scripts/bench_data.py                            # all three, about 3 minutes
    python scripts/bench_data.py --only tokenizing --megabytes 60 --rounds 9
    python scripts/bench_data.py --only waiting --config medium --set training.compile=on

Tokenizing: the whole of `minigpt prepare` (reading, splitting, hashing, encoding, shards with checksums), given a
tokenizer, against `tokenizers`' own encode_batch of the same texts in memory; both on all cores, taking turns.
Waiting: the training loop of a real run. Opening: corpora of zeros that take no disk, each in a process of its own.
A machine that others use gives other numbers: the median comes with the lowest and the highest.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.data.encode import usable_cpus
from minigpt.lab.data_path import opening, tokenizing, waiting

PARTS = ("tokenizing", "waiting", "opening")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="one of the three")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of each contender (default: 5)")
    parser.add_argument("--megabytes", type=int, default=20, help="of each made-up text (default: 20)")
    parser.add_argument("--gigabytes", type=int, nargs="+", default=[1, 10, 100, 1000], help="of the corpora")
    parser.add_argument("--config", default="small", help="the run that waits (default: small)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override its keys")
    parser.add_argument("--steps", type=int, default=40, help="of the run that waits (default: 40)")
    given = parser.parse_args()
    if given.only in (None, "tokenizing"):
        print(f"tokenizing, {usable_cpus()} cores: median (lowest to highest)", flush=True)
        tokenize(given.megabytes, given.rounds)
    if given.only in (None, "waiting"):
        print("waiting for a step's data", flush=True)
        own = given.set or ["training.compile=off"]
        show(waiting.share_of_steps(given.config, given.config, own, given.steps))
        show(waiting.share_of_steps("a model of 16 x 1", "small", waiting.TINY, 20 * given.steps))
        show(waiting.checksum_cost())
    if given.only in (None, "opening"):
        print("opening a prepared corpus, and reading from all over it", flush=True)
        for gigabytes in given.gigabytes:
            show(opening.measure(gigabytes, min(3, given.rounds)))


def tokenize(megabytes: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, tokenizing.corpora(megabytes) as sources:
        tokenizer = tokenizing.trained_tokenizer(Path(folder))
        for name, source in sources.items():
            first, *rest = tokenizing.compare(source, tokenizer, rounds)
            show([f" {name}: {first}", *rest])


def show(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
