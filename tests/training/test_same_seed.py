"""The same seed on the same machine gives the same weights: each way to compute, in two processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.lab.same_run import compare_runs
from tests.training.tiny_run import REPOSITORY, Workshop

STEPS = 8
WAYS = {
    "fp32": ("training.mixed_precision=off",),
    "bf16": ("training.mixed_precision=bf16",),
    "fp16": ("training.mixed_precision=fp16",),
    "dropout": ("model.dropout=0.2",),
    "muon": ("optimizer.name=muon", "optimizer.learning_rate=0.004"),
    "recomputed": ("training.activation_checkpointing=on", "model.dropout=0.2"),
    "products kept": ("training.activation_checkpointing=selective", "model.dropout=0.3"),
}
PROGRAM = """
import sys
from pathlib import Path
from minigpt.training.pretrain import pretrain
from tests.training.test_same_seed import STEPS, WAYS

config, folder, *order = sys.argv[1:]
for way in order:
    settings = (*WAYS[way], f"training.max_steps={STEPS}", "monitor.throughput_drop.enabled=false")
    assert pretrain(config, settings, Path(folder) / way, None) == 0
"""


def trained_in_a_process(workshop: Workshop, folder: Path, ways: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, workshop.config_path, str(folder), *ways],
        cwd=workshop.folder,
        # Another order of sets and dictionaries' hashes must not matter either.
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": str(len(folder.name))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with a run of each way: in the second one trained in the opposite order."""
    folder = tmp_path_factory.mktemp("twice")
    workshop = Workshop.set_up(folder)
    first, second = folder / "first", folder / "again"
    trained_in_a_process(workshop, first, list(WAYS))
    trained_in_a_process(workshop, second, list(WAYS)[::-1])
    return first, second


@pytest.mark.parametrize("way", WAYS)
def test_same_seed_gives_the_same_run_to_the_last_bit(way: str, twice: tuple[Path, Path]) -> None:
    found = compare_runs(twice[0] / way, twice[1] / way, STEPS)
    assert found.in_state == ()
    assert found.in_records == ()
    assert found.tensors > 30


def test_ways_differ_from_each_other(twice: tuple[Path, Path]) -> None:
    """Or the tests above would compare one way with itself."""
    plain = twice[0] / "fp32"
    for way in WAYS.keys() - {"fp32"}:
        assert not compare_runs(plain, twice[0] / way, STEPS).is_same
