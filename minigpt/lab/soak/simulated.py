"""The records of a very long run, written by the run's own sinks without a model: how large, how slow to open?"""

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from minigpt.lab.soak.marks import peak_rss_bytes
from minigpt.training_monitor.event import Event
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.events import EventsSink
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.in_folder import folder_sinks
from minigpt.training_monitor.sinks.metrics import MetricsSink

LAYERS = tuple(f"blocks.{number}" for number in range(12))
FLUSH_EVERY = 1000
MOST_SECONDS = {"resume": 60.0, "tensorboard": 120.0, "diagnose": 300.0}
MOST_MEMORY_BYTES = 1 << 30


def signals_of(step: int, steps: int) -> StepSignals:
    """A step of a run that is well: the loss falls, everything wavers. A pure function of the step."""
    noise = random.Random(step)
    progress = step / steps
    loss = 2.0 + 4.0 * math.exp(-8 * progress) + noise.gauss(0, 0.02)
    norms = {name: abs(noise.gauss(0.1, 0.01)) for name in LAYERS}
    return StepSignals(
        step,
        loss,
        abs(noise.gauss(0.35, 0.03)),
        3e-4 * min(1.0, step / 4000) * (1 - 0.9 * progress),
        group_norms=norms,
        weight_norms=dict.fromkeys(LAYERS, 10.0 + progress),
        update_ratios={name: 1e-3 * norm * 10 for name, norm in norms.items()},
        clipped=noise.random() < 0.01,
        tokens=16384,
        tokens_seen=16384 * step,
        seconds=0.1,
        tokens_per_second=163_840 + noise.gauss(0, 1000),
        memory_bytes=8 << 30,
        position=32 * step,
    )


def simulate(folder: Path, steps: int) -> list[str]:
    """Write, resume, and open the records of `steps` steps; what took too long or too much, a line each."""
    started_at = time.monotonic()
    write_records(folder, steps)
    print(f"writing {steps:,} steps: {time.monotonic() - started_at:.1f} s", flush=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            print(f"  {path.relative_to(folder)}: {path.stat().st_size / 2**20:,.1f} MiB")
    print(f"  memory of this process at most {peak_rss_bytes() / 2**20:,.0f} MiB")
    me = [sys.executable, "-m", "minigpt.lab.soak.simulated", str(folder), str(steps)]
    diagnose = [sys.executable, "-m", "minigpt", "diagnose", str(folder / "metrics.jsonl")]
    found = []
    for name, command in (
        ("resume", [*me, "resume"]),
        ("tensorboard", [*me, "tensorboard"]),
        ("diagnose", diagnose),
    ):
        seconds, memory_bytes = _measured(command)
        print(f"{name}: {seconds:.1f} s of processor, {memory_bytes / 2**20:,.0f} MiB at most")
        if seconds > MOST_SECONDS[name] * max(1.0, steps / 1e6):
            found.append(f"{name} takes {seconds:.0f} s")
        if memory_bytes > MOST_MEMORY_BYTES:
            found.append(f"{name} takes {memory_bytes >> 20} MiB")
    return found


def write_records(folder: Path, steps: int) -> None:
    """What a run of `steps` steps leaves, with an anomaly at every single one of the last tenth."""
    sinks = FanOut(folder_sinks(folder, 0))
    for step in range(1, steps + 1):
        sinks.step(signals_of(step, steps), log=False)
        if step > 0.9 * steps:
            sinks.event(_alarm(step))
        if step % FLUSH_EVERY == 0:
            sinks.flush()
    sinks.flush()
    sinks.close()


def _alarm(step: int) -> Event:
    text = f"⚠️ Anomaly detected at step {step}: loss_spike\n   Seen: a simulated one"
    return Event(step, "anomaly", "loss_spike", text, data={"status": ("suspected", "transient")[step % 2]})


def _resume(folder: Path, steps: int) -> None:
    """Cut the records back by a thousand steps, as a resume does."""
    for sink in (MetricsSink, EventsSink):
        name = "metrics.jsonl" if sink is MetricsSink else "events.jsonl"
        sink(folder / name, keep_through=steps - 1000).close()


def _load(folder: Path, steps: int) -> None:
    """All points of all curves, as `tensorboard --samples_per_plugin scalars=0` loads them."""
    reader = EventAccumulator(str(folder / "monitor_logs"), size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    points = {tag: len(reader.Scalars(tag)) for tag in tags}
    print(
        f"  {len(tags)} curves, {points['train/loss']:,} points of the loss, {sum(points.values()):,} in all"
    )


def _measured(command: list[str]) -> tuple[float, int]:
    """Seconds of processor, which other work on the machine does not stretch, and bytes of memory at most."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


_PARTS: dict[str, Callable[[Path, int], None]] = {"resume": _resume, "tensorboard": _load}

if __name__ == "__main__":
    _PARTS[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
