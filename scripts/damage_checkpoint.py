#!/usr/bin/env python3
"""Every truncation and every single flipped bit of a checkpoint, tried on the code that loads it.

python scripts/damage_checkpoint.py                                        a tiny model's, some minutes
python scripts/damage_checkpoint.py checkpoints/pretrain_small/crash_step_7.pt --sample 2000     a copy of one's own

Exits with 1 if any damage was not noticed.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from minigpt.checkpoint.health import health_mark
from minigpt.checkpoint.load import load_checkpoint
from minigpt.checkpoint.save import save_checkpoint
from minigpt.lab.damage import Reader, unseen_cuts, unseen_flips
from minigpt.training.bundle import read_bundle
from minigpt.training.folder import CRASH_PREFIX


def main() -> int:
    chosen = _asked_for()
    with tempfile.TemporaryDirectory() as folder:
        path = (
            _tiny_checkpoint(Path(folder)) if chosen.path is None else Path(shutil.copy(chosen.path, folder))
        )
        read = read_bundle if path.name.startswith(CRASH_PREFIX) else load_checkpoint
        read(path)
        size = path.stat().st_size
        unseen = _tried("truncations", unseen_cuts, path, read, size, chosen)
        unseen += _tried("flipped bits", unseen_flips, path, read, 8 * size, chosen)
        read(path)
    return int(unseen > 0)


def _asked_for() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", nargs="?", type=Path, help="a checkpoint or crash bundle; it is copied first")
    parser.add_argument("--sample", type=int, help="try so many of each, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _tried(
    name: str,
    unseen_of: Callable[[Path, Reader, Iterable[int]], list[int]],
    path: Path,
    read: Reader,
    count: int,
    chosen: argparse.Namespace,
) -> int:
    """How many of `count` damages, or of a sample of them, were not noticed; says so."""
    tried: Sequence[int] = range(count)
    if chosen.sample is not None and chosen.sample < count:
        tried = random.Random(chosen.seed).sample(tried, chosen.sample)
    began = time.monotonic()
    unseen = unseen_of(path, read, tried)
    seconds = time.monotonic() - began
    print(
        f"{path.name}, {path.stat().st_size:,} bytes: {len(tried):,} {name} tried in {seconds:.0f} s, "
        f"{len(unseen)} not noticed{f': {unseen[:10]}' if unseen else ''}",
        flush=True,
    )
    return len(unseen)


def _tiny_checkpoint(folder: Path) -> Path:
    """With what a real one has: many small tensors, nested data, random states, a mark."""
    generator = torch.Generator().manual_seed(0)
    weights = {f"blocks.{i}.weight": torch.randn(16, 16, generator=generator) for i in range(12)}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(weight) for weight in weights.values()])
    state = {
        "model_state_dict": weights,
        "optimizer_state_dicts": [optimizer.state_dict()],
        "rng": [{"torch": generator.get_state()}],
        "position": {"step": 7, "best_loss": 1.5},
        **health_mark({"loss_spike": "suspected"}, 3),
    }
    return save_checkpoint(folder, 7, state)


if __name__ == "__main__":
    sys.exit(main())
