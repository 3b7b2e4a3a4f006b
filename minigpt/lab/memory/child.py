"""A process of its own that trains a few steps of a case and prints the memory they took, as a line of JSON.

python -m minigpt.lab.memory.child CONFIG.yaml RUN_DIR
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minigpt.config.load import load_config
from minigpt.data.prepare import prepare
from minigpt.distributed.device import resolve_device
from minigpt.distributed.world import World
from minigpt.planning.memory import memory_report
from minigpt.training.build import build_run
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupt
from minigpt.training.loop import train
from minigpt.training.records import open_records
from minigpt.training_monitor.probes.memory import peak_memory_bytes


@dataclass(frozen=True)
class Measured:
    """Bytes."""

    predicted: int
    peak: int
    """Of the process (VmHWM), or of torch's allocator on a GPU, less what it held before there was a model."""
    parts: dict[str, int]


def measured(config_path: Path, run_dir: Path) -> Measured:
    """The memory of the run that the configuration describes, trained to its end in this process."""
    loaded = load_config(str(config_path))
    device = resolve_device(loaded.config.training.device)
    order, world = Order(loaded.name, run_dir, loaded.config), World(rank=0, size=1, device=device)
    prepared = prepare(loaded.config.data, progress=False)
    before = _held_bytes(device)
    with ExitStack() as stack:
        run = build_run(order, prepared, world, Interrupt(), stack, None)
        report = memory_report(run.workload)
        open_records(run, stack)
        train(run)
    peak = peak_memory_bytes(device)
    assert peak is not None
    return Measured(report.peak, peak - before, dict(report.parts()))


def _held_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    found = measured(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps(asdict(found)))
