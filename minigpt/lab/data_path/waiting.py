"""How long a training step waits for its data, in a real run."""

import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

from minigpt.data.blocks import BLOCK_BYTES
from minigpt.lab.data_path.measured import seconds_of, spread
from minigpt.training import loop
from minigpt.training.pretrain import pretrain
from minigpt.training.run import Run

WARMUP_STEPS = 5
TIMES = 20
QUIET = (
    "training.eval_every_steps=1000000",
    "training.eval_tokens=1024",
    "training.sample_tokens=0",
    "checkpoint.every_minutes=null",
    "checkpoint.every_steps=1000000",
)
"""Nothing but steps in between."""
TINY = (
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=1",
    "model.context_length=64",
    "training.micro_batch_size=8",
    "training.tokens_per_step=512",
    "training.mixed_precision=off",
    "training.compile=off",
    "optimizer.name=adamw",
)
"""The worst case: a model that is next to nothing, so that reading cannot hide behind computing."""


def share_of_steps(name: str, config: str, overrides: Sequence[str], steps: int) -> list[str]:
    """What of a step is waiting for data, in the loop of a real run; and what reading takes in the background."""
    waits: list[float] = []
    begins: list[float] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory() as folder, _nothing_printed(), _timed_waits(waits, begins):
        length = (f"training.max_steps={steps + WARMUP_STEPS}", *QUIET)
        pretrain(
            config,
            [*overrides, *length],
            Path(folder, "run"),
            None,
            when_built=lambda run: alone.extend(_alone(run)),
        )
    laps = [end - begin for begin, end in pairwise(begins)][WARMUP_STEPS:]
    waited = waits[WARMUP_STEPS:-1]
    share = sum(waited) / sum(laps)
    return [
        f"  {name:28s} step {spread([1e3 * lap for lap in laps])} ms, "
        f"waits {spread([1e3 * wait for wait in waited], '.3f')} ms: {share:.2%} of all; "
        f"its data take {1e3 * statistics.median(alone):.2f} ms to read in the background"
    ]


def checksum_cost(rounds: int = 200) -> list[str]:
    """What verifying a block costs beside reading it from the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "block")
        path.write_bytes(os.urandom(BLOCK_BYTES))
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = os.pread(descriptor, BLOCK_BYTES, 0)
            reading = [seconds_of(lambda: os.pread(descriptor, BLOCK_BYTES, 0)) for _ in range(rounds)]
            checking = [seconds_of(lambda: zlib.crc32(data)) for _ in range(rounds)]
        finally:
            os.close(descriptor)
    return [
        f"  a block of {BLOCK_BYTES:,} bytes: {1e6 * statistics.median(reading):.1f} us to read from memory, "
        f"{1e6 * statistics.median(checking):.1f} us to verify"
    ]


def _alone(run: Run) -> list[float]:
    """Seconds that reading one step's data takes with nobody else at work."""
    stride = run.loader.windows_per_step
    return [seconds_of(lambda at=at: run.loader.step_at(at * stride)) for at in range(TIMES)]  # type: ignore[misc]


@contextmanager
def _timed_waits(waits: list[float], begins: list[float]) -> Iterator[None]:
    """Notes when each step asks for its data, and how long it waits for them."""
    parts: Any = loop
    next_batches = parts.next_batches

    def timed(run: Run) -> Any:
        begins.append(time.perf_counter())
        batches = next_batches(run)
        waits.append(time.perf_counter() - begins[-1])
        return batches

    parts.next_batches = timed
    try:
        yield
    finally:
        parts.next_batches = next_batches


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """And no logs/training.log where it was started from."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        os.chdir(folder)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
        finally:
            os.chdir(before)
