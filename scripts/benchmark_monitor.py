#!/usr/bin/env python3
"""What watching costs: real training steps with and without the monitor, taking turns in one run.

    python scripts/benchmark_monitor.py                     # the small preset, on the GPU if there is one
    python scripts/benchmark_monitor.py --device cpu --steps 200 --set training.compile=off

`with` is a step as `minigpt train` does it: probes, detectors, metrics.jsonl, events.jsonl, TensorBoard. `without`
measures only what clipping needs anyway, and reads the loss. Machines are noisy: each step with is compared with the
step without beside it, and the cost of every part is also timed alone, with what it leaves to threads of its own.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.config.load import load_config
from minigpt.data.prepare import prepare
from minigpt.distributed.world import joined_world
from minigpt.optim.schedule import lr_at
from minigpt.training import step as step_module
from minigpt.training.build import build_run
from minigpt.training.compilation import compile_model
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupt
from minigpt.training.observe import Observer
from minigpt.training.records import open_records
from minigpt.training.run import Run
from minigpt.training.step import train_step
from minigpt.training_monitor.deferred_read import DeferredRead
from minigpt.training_monitor.monitor import TrainingMonitor
from minigpt.training_monitor.probes.batch import batch_facts
from minigpt.training_monitor.signals import StepSignals
from minigpt.training_monitor.sinks.fan_out import FanOut
from minigpt.training_monitor.sinks.protocol import Sink

WARMUP_STEPS, TIMES = 3, 40
FILES = ("MetricsSink", "EventsSink", "TensorBoardSink")


class BareProbe:
    """What is left of the probe where nobody watches: the norm that clipping needs, by torch's own function."""

    def __init__(self, run: Run) -> None:
        self._parameters = list(run.model.parameters())

    def measure(self, *, count_zeros: bool = False) -> Any:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients, foreach=True)
        return SimpleNamespace(total=total, vector=total.reshape(1))

    def gradients(self) -> list[torch.Tensor]:
        return []


@contextmanager
def unwatched(run: Run) -> Iterator[None]:
    """The run without its probe while the block lasts."""
    parts: Any = step_module
    probe, facts = run.probe, parts.batch_facts
    run.probe = BareProbe(run)  # type: ignore[assignment]
    parts.batch_facts = lambda pairs: None
    try:
        yield
    finally:
        run.probe, parts.batch_facts = probe, facts


@contextmanager
def opened(preset: str, overrides: list[str], device: str) -> Iterator[Run]:
    config = load_config(preset, [*overrides, f"training.device={device}"]).config
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world = stack.enter_context(joined_world(device))
        order = Order("benchmark", folder, config)
        run = build_run(order, prepare(config.data), world, Interrupt(), stack, None)
        open_records(run, stack)
        # Not the console and not logs/training.log: they are not the monitor's.
        run.sinks = FanOut(
            [sink for sink in sinks_of(run) if type(getattr(sink, "sink", sink)).__name__ in FILES]
        )
        yield run


def sinks_of(run: Run) -> list[Sink]:
    return list(run.sinks._sinks) if isinstance(run.sinks, FanOut) else [run.sinks]


class Turns:
    """Steps of one run, with and without."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.signals: list[StepSignals] = []
        keeper: Any = FanOut([])
        keeper.step = lambda signals, log: self.signals.append(signals)
        run.sinks = FanOut([*sinks_of(run), keeper])
        self._observer = Observer(run)
        self._losses: DeferredRead[None] = DeferredRead()

    def watched(self) -> float:
        run = self._run
        batches = run.loader.next_step()
        self._wait()
        started_at = time.perf_counter()
        self._observer.begin(batches)
        result = train_step(run, batches, self._lr())
        run.position.step += 1
        run.position.tokens_seen += result.targets
        run.position.window = batches.next_position
        self._observer.push(result, self._lr(), time.perf_counter() - started_at, batches.position)
        self._wait()
        return time.perf_counter() - started_at

    def bare(self) -> float:
        run = self._run
        batches = run.loader.next_step()
        self._wait()
        started_at = time.perf_counter()
        with unwatched(run):
            result = train_step(run, batches, self._lr())
        self._losses.push(None, result.numbers)
        self._wait()
        return time.perf_counter() - started_at

    def _lr(self) -> float:
        run = self._run
        return lr_at(run.position.step, run.schedule, run.learning_rate, run.config.max_steps)

    def _wait(self) -> None:
        if self._run.world.device.type == "cuda":
            torch.cuda.synchronize()


def compare(turns: Turns, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of watched steps and, for each, of the bare ones beside it; who goes first changes every time."""
    for _ in range(WARMUP_STEPS):
        turns.watched()
        turns.bare()
    watched: list[float] = []
    bare: list[float] = []
    pair = [(watched, turns.watched), (bare, turns.bare)]
    for _ in range(steps):
        pair.reverse()
        for seconds, turn in pair:
            seconds.append(turn())
    return watched, bare


def report(watched: list[float], bare: list[float]) -> list[str]:
    differences = sorted(100 * (one / other - 1) for one, other in zip(watched, bare, strict=True))
    low, high = (differences[int(len(differences) * share)] for share in (0.25, 0.75))
    # Of a median of n noisy numbers: 1.25 standard errors, sigma from the quartiles.
    error = 1.25 * (high - low) / 1.35 / len(differences) ** 0.5
    medians = [1e3 * statistics.median(seconds) for seconds in (bare, watched)]
    return [
        f"a step without: median {medians[0]:.2f} ms; with: {medians[1]:.2f} ms",
        f"overhead, pair by pair: median {statistics.median(differences):+.2f} % +- {error:.2f} "
        f"(half of the pairs lie between {low:+.1f} and {high:+.1f}; {len(differences)} pairs)",
    ]


def parts(run: Run, turns: Turns) -> dict[str, Callable[[], object]]:
    """What can be timed alone, with gradients as the last step had them."""
    batches = run.loader.next_step()
    pairs = [(batch.inputs_BT, batch.targets_BT) for batch in batches.micro_batches]
    for parameter in run.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    bare, measurement = BareProbe(run), run.probe.measure()
    values = measurement.vector.tolist()
    monitor = TrainingMonitor(run.monitor.config, facts=run.monitor._facts)
    timed: dict[str, Callable[[], object]] = {
        "(the norm that clipping needs)": bare.measure,
        "probe: gradients, weights, updates": run.probe.measure,
        "probe: the same, counting zeros": lambda: run.probe.measure(count_zeros=True),
        "batch facts": lambda: batch_facts(pairs),
        "reading the vector": lambda: measurement.read(values),
        "detectors": each(turns.signals, monitor.observe),
    }
    files = (sink for sink in sinks_of(run) if type(sink).__name__ in FILES)
    return timed | {type(sink).__name__: each(turns.signals, partial(sink.step, log=False)) for sink in files}


def each(signals: list[StepSignals], take: Callable[[StepSignals], object]) -> Callable[[], object]:
    """At each call gives `take` the next of the run's last TIMES steps; those before at once, to learn from."""
    for one in signals[:-TIMES]:
        take(one)
    rest = iter(signals[-TIMES:])
    return lambda: take(next(rest))


def microseconds(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """The caller's wait (median), and other threads' work (mean), each time after emptying caches as a step does."""
    flood = torch.zeros(16 * 2**20 if device.type == "cpu" else 1, device=device)
    taken, threads = [], 0.0
    for _ in range(TIMES):
        flood.add_(1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        all_before, own_before, started_at = time.process_time(), time.thread_time(), time.perf_counter()
        call()
        taken.append(time.perf_counter() - started_at)
        time.sleep(0.002)  # for the threads to finish
        threads += (time.process_time() - all_before) - (time.thread_time() - own_before)
    return 1e6 * statistics.median(taken), 1e6 * threads / TIMES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small", help="a preset's name or a YAML file (default: small)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=60, help="pairs of steps (default: 60; at least 40)")
    parser.add_argument("--compile", action="store_true", help="compile the model first, as long runs do")
    given = parser.parse_args()
    with opened(given.config, given.set, given.device) as run:
        if given.compile:
            compile_model(run.model, run.micro_batch_size, run.precision)
        title = (
            f"{given.config} on {given.device}, {torch.get_num_threads()} CPU threads, {run.precision.name}"
        )
        print(f"{title}{', compiled' if given.compile else ''}, torch {torch.__version__}")
        turns = Turns(run)
        watched, bare = compare(turns, given.steps)
        print("\n".join(report(watched, bare)))
        step = statistics.median(bare)
        print("each part alone (on CUDA: the host's share), and what it leaves to other threads")
        for name, call in parts(run, turns).items():
            wait, others = microseconds(call, run.world.device)
            print(
                f"  {name:36s} {wait:8.0f} us  {wait / step / 1e4:6.3f} % of a step  {others:6.0f} us in threads"
            )


if __name__ == "__main__":
    main()
