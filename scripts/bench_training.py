#!/usr/bin/env python3
"""How fast MiniGPT trains, side by side with what a user would pick instead.

    pip install 'minigpt[bench]'                           # the peers: transformers, litgpt
    python scripts/bench_training.py                       # small, bf16, compiled, on this CPU
    python scripts/bench_training.py --preset both --output bench.json
    python scripts/bench_training.py --rounds 0            # only compile: the next run finds a warm cache
    python scripts/bench_training.py --contenders minigpt minigpt@../another/tree nanogpt
    python scripts/bench_training.py --contenders minigpt minigpt:model.qk_norm=true,optimizer.name=muon
    python scripts/bench_training.py --device cuda --shape medium --shape 16x1024

Each contender is a process of its own that stays alive; they make a few steps in turn, round after round, each round in
another order. What counts is the ratio within a round: its median and quartiles. All have the same shape, micro-batch,
precision, learning rate and the very same token batches. MiniGPT is `minigpt train` itself (loop, loader, monitor,
records, clipping), the peers are the bare loops of their recipes, with fused AdamW. `minigpt` has the peers' model,
`minigpt-preset` whatever its preset has switched on. Evaluations and checkpoints are nobody's.
What concerns CUDA is written by the documentation and has not been run on a GPU yet.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.bench.command import run
from minigpt.lab.script import run_script

if __name__ == "__main__":
    run_script(run, __doc__)
