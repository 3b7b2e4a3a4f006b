#!/usr/bin/env python3
"""How soon MiniGPT answers: help, the first step of a run, and what compiling costs until it is won back.

    python scripts/bench_startup.py                         # about 4 minutes
    python scripts/bench_startup.py --only help
    python scripts/bench_startup.py --only compile --config medium --set training.micro_batch_size=2

Everything is timed from outside, from the start of the process on. Compiling is timed with torch's cache empty (cold),
then filled (warm), each time in a new process; the break-even is what of it the faster steps win back.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.data_path.measured import seconds_of, spread

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("help", "first-step", "compile")
COMMANDS = (
    "--help",
    "--version",
    "config list",
    "train --help",
    "prepare --help",
    "generate --help",
    "evaluate --help",
    "diagnose --help",
    "memory --help",
    "replay --help",
    "verify --help",
    "verify-resume --help",
    "config --help",
    "config show --help",
    "lab --help",
    "lab drill --help",
)
ONLY_STEPS = (
    "training.eval_tokens=1024",
    "training.eval_every_steps=1000000",
    "training.sample_tokens=0",
    "training.log_every_steps=1",
    "checkpoint.every_minutes=null",
    "checkpoint.every_steps=1000000",
)
STEPS, WARMUP_STEPS = 10, 3


def minigpt(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "minigpt", *arguments]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path} | more


def time_help(rounds: int) -> None:
    for line in COMMANDS:
        run = partial(
            subprocess.run, minigpt(*line.split()), check=True, capture_output=True, env=environment()
        )
        print(f"  {line:24s} {spread([seconds_of(run) for _ in range(rounds)])} s", flush=True)


def train_command(config: str, overrides: Sequence[str], run_dir: Path, steps: int) -> list[str]:
    settings = [*ONLY_STEPS, f"training.max_steps={steps}", *overrides]
    sets = [word for setting in settings for word in ("--set", setting)]
    return minigpt("train", "--config", config, "--run-dir", str(run_dir), *sets)


def first_step_seconds(config: str, overrides: Sequence[str]) -> float:
    """From the start of the process until it says what step 1 gave."""
    with tempfile.TemporaryDirectory() as folder:
        command = train_command(config, overrides, Path(folder, "run"), steps=1)
        started_at = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            said: list[str] = []
            for line in process.stdout:
                said.append(line)
                if "Step 1:" in line:
                    seconds = time.perf_counter() - started_at
                    process.communicate()
                    return seconds
        raise SystemExit("no first step:\n" + "".join(said))


def time_first_step(config: str, overrides: Sequence[str], rounds: int) -> None:
    eager = [*overrides, "training.compile=off"]
    torch = [
        seconds_of(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))
        for _ in range(rounds)
    ]
    print(f"  import torch, nothing else: {spread(torch)} s", flush=True)
    first_step_seconds(config, eager)  # prepares the corpus, where it is not yet
    seconds = [first_step_seconds(config, eager) for _ in range(rounds)]
    print(f"  {config}, corpus in the cache, eager: {spread(seconds)} s to the end of step 1", flush=True)


def step_seconds(config: str, overrides: Sequence[str], compiled_code: Path, steps: int) -> list[float]:
    """Of each step after the first few."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            train_command(config, overrides, Path(folder, "run"), steps),
            check=True,
            capture_output=True,
            cwd=folder,
            env=environment(TORCHINDUCTOR_CACHE_DIR=str(compiled_code)),
        )
        lines = Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["seconds"] for line in lines][WARMUP_STEPS:]


def time_compiling(config: str, overrides: Sequence[str], rounds: int) -> None:
    """Cold once, warm `rounds` times; eager runs take turns with the warm ones."""
    with tempfile.TemporaryDirectory() as folder:
        compiled_code = Path(folder)
        on, off = ([*overrides, f"training.compile={word}"] for word in ("on", "off"))
        step_seconds(config, on, compiled_code, WARMUP_STEPS + 1)
        warm, eager, compiled = [], list[float](), list[float]()
        for _ in range(rounds):
            compiled.append(statistics.median(step_seconds(config, on, compiled_code, STEPS)))
            eager.append(statistics.median(step_seconds(config, off, compiled_code, STEPS)))
            (costs,) = (compiled_code / "minigpt_costs").glob("*.json")
            known = json.loads(costs.read_text(encoding="utf-8"))
            warm.append(known["again_seconds"])
    cold = known["first_seconds"]
    ratios = [one / other for one, other in zip(compiled, eager, strict=True)]
    print(f"  {config}: compiling takes {cold:.1f} s cold, {spread(warm, '.1f')} s warm")
    print(f"  a step: eager {spread(eager)} s, compiled {spread(compiled)} s: {spread(ratios)} of it")
    won = statistics.median(eager) - statistics.median(compiled)
    for name, cost in (("cold", cold), ("warm", statistics.median(warm))):
        if won <= 0:
            print(f"  {name}: never won back")
        else:
            steps = cost / won
            print(
                f"  {name}: won back after {steps:.0f} steps, {steps * statistics.median(eager):.0f} s of eager work"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="one of the three")
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions (default: 5; compiling: 3 at most)"
    )
    parser.add_argument("--config", default="small", help="a preset's name or a YAML file (default: small)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    given = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "help": lambda: time_help(given.rounds),
        "first-step": lambda: time_first_step(given.config, given.set, given.rounds),
        "compile": lambda: time_compiling(given.config, given.set, min(3, given.rounds)),
    }
    for name, measure in parts.items():
        if given.only in (None, name):
            print(f"{name}: median (lowest to highest)", flush=True)
            measure()


if __name__ == "__main__":
    main()
