"""A corpus, a configuration and runs so small that a test can afford to train."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)
from torch import Tensor

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.loader import Batch, StepBatches
from minigpt.data.prepare import prepare
from minigpt.distributed.world import World
from minigpt.model.loss import IGNORE_INDEX
from minigpt.training.build import build_run
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupt
from minigpt.training.pretrain import pretrain
from minigpt.training.records import open_records
from minigpt.training.run import Run
from minigpt.training.save import save
from minigpt.training.state import restore_state

REPOSITORY = Path(__file__).parents[2]
WORDS = [
    "the",
    "a",
    "one",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "sees",
    "likes",
    "finds",
    "red",
    "small",
    "old",
    "and",
    "or",
    "in",
    "on",
    "under",
    "near",
]

SETTINGS: dict[str, dict[str, Any]] = {
    "model": {
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 32,
        "context_length": 16,
    },
    "data": {"tokenizer": {"kind": "bytes"}, "validation_fraction": 0.2, "num_workers": 1},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"warmup_steps": 4},
    "training": {
        "max_steps": 12,
        "tokens_per_step": 128,
        "micro_batch_size": 4,
        "mixed_precision": "off",
        "compile": "off",
        "eval_every_steps": 5,
        "eval_tokens": 128,
        "log_every_steps": 4,
        "sample_tokens": 0,
        "device": "cpu",
    },
    "checkpoint": {"every_steps": 4, "every_minutes": None},
    # Rules about the clock and the process: what they find is no two runs' own.
    "monitor": {"throughput_drop": {"enabled": False}, "memory_growth": {"enabled": False}},
}
# What no two runs share, and no resume can bring back.
CLOCK_FIELDS = {"seconds", "tokens_per_second", "mfu", "memory_bytes"}
CLOCK_DETECTORS = {"throughput_drop", "memory_growth"}
CLOCK_TAGS = {"train/tokens_per_second", "train/mfu", "train/memory_gib"}


def text_of(number: int, words: int = 60) -> str:
    """The same text for a number on every machine: words picked by a linear congruential generator."""
    state, picked = number + 1, []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        picked.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(picked) + "\n"


@dataclass(frozen=True)
class Workshop:
    """A folder with a corpus of a few thousand bytes and the configuration `tiny` for it."""

    folder: Path

    @classmethod
    def set_up(cls, folder: Path) -> "Workshop":
        corpus = folder / "corpus"
        corpus.mkdir()
        for number in range(10):
            (corpus / f"{number}.txt").write_text(text_of(number), encoding="utf-8")
        data = {**SETTINGS["data"], "source": str(corpus), "cache_dir": str(folder / "cache")}
        # JSON is YAML.
        (folder / "tiny.yaml").write_text(json.dumps({**SETTINGS, "data": data}), encoding="utf-8")
        return cls(folder)

    @property
    def config_path(self) -> str:
        return str(self.folder / "tiny.yaml")

    def config(self, *overrides: str) -> RunConfig:
        return load_config(self.config_path, overrides).config

    def train(self, run_dir: Path, *overrides: str, resume: str | None = None) -> int:
        """`minigpt train` in this process; its exit code."""
        return pretrain(self.config_path, overrides, run_dir, resume)

    def start(
        self,
        run_dir: Path,
        *overrides: str,
        ranks: int = 1,
        threads: int = 1,
        resume: bool = False,
        program: str | None = None,
    ) -> "Process":
        """`minigpt train` in a process of its own, under torchrun if it is to have several ranks.

        `program`: Python to run instead of `-m minigpt`, with the same arguments.
        """
        script = self.folder / "program.py"
        script.write_text(program or "", encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        sets = [word for override in overrides for word in ("--set", override)]
        arguments = ["--config", self.config_path, "--run-dir", str(run_dir), *sets]
        return subprocess.Popen(
            [
                sys.executable,
                *launcher,
                *([str(script)] if program else ["-m", "minigpt"]),
                "train",
                *arguments,
                *(["--resume"] * resume),
            ],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


Process = subprocess.Popen[str]


@contextmanager
def opened_run(config: RunConfig, run_dir: Path, saved: dict[str, Any] | None = None) -> Iterator[Run]:
    """A run in this process, begun anew or put back into the checkpoint `saved`, and closed in the end."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        world = World(rank=0, size=1, device=torch.device("cpu"))
        order = Order("tiny", run_dir, config)
        prepared = prepare(config.data, progress=False)
        run = build_run(order, prepared, world, Interrupt(), stack, saved)
        if saved is not None:
            restore_state(run, saved)
        open_records(run, stack)
        if saved is None:
            save(run, "before the first step")
        yield run


def before_step(run: Run, step: int, act: Callable[[], None]) -> None:
    """`act` right before `step` is trained."""
    next_step = run.loader.next_step

    def watched() -> StepBatches:
        if run.position.step + 1 == step:
            act()
        return next_step()

    run.loader.next_step = watched  # type: ignore[method-assign]


def interrupt_at(run: Run, step: int) -> None:
    """Ctrl-C while `step` is trained."""
    before_step(run, step, lambda: setattr(run.interrupt, "signal", signal.SIGINT))


def built_with_reads(late: bool | None) -> Callable[..., Run]:
    """`build_run`, of a run that reads its numbers late (None: as its device wants it)."""
    own = build_run

    def build(*arguments: Any, **named: Any) -> Run:
        run = own(*arguments, **named)
        run.reads_late = late
        return run

    return build


LATE_PROGRAM = """
from minigpt.cli.main import main
from minigpt.training import pretrain
from tests.training.tiny_run import built_with_reads

pretrain.build_run = built_with_reads(True)
main()
"""
"""`minigpt` that reads every step's numbers one step late, as on CUDA."""


def step_batches(*micro_batches: tuple[Tensor, Tensor], targets: int | None = None) -> StepBatches:
    """One step's batches from pairs of inputs and targets; `targets` that count, where they cannot be counted."""
    batches = [Batch(inputs, targets_BT, 0, 0, ()) for inputs, targets_BT in micro_batches]
    if targets is None:
        targets = sum(int((batch.targets_BT != IGNORE_INDEX).sum()) for batch in batches)
    return StepBatches(batches, 0, 0, 0, targets)


def random_batch(size: int, seed: int = 0, length: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 256, (size, length + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:].clone()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock and the memory say."""
    records = read_lines(run_dir / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in CLOCK_FIELDS} for record in records]


def curves_of(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard series but the clock's, as TensorBoard shows it: (step, value) in order."""
    events = EventAccumulator(str(run_dir / "monitor_logs"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in CLOCK_TAGS]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def evaluated_steps(run_dir: Path) -> list[int]:
    """Steps of the evaluations in events.jsonl that still stand."""
    return [
        event["step"]
        for event in read_lines(run_dir / "events.jsonl")
        if event["kind"] == "evaluation" and not event.get("superseded")
    ]


def assert_same(first: object, second: object, place: str = "") -> None:
    """Equal to the last bit, all the way down; NaN equals NaN."""
    assert type(first) is type(second), place
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict) and isinstance(second, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_same(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, Sequence) and isinstance(second, Sequence) and not isinstance(first, str):
        assert len(first) == len(second), place
        for index, (left, right) in enumerate(zip(first, second, strict=True)):
            assert_same(left, right, f"{place}[{index}]")
    else:
        assert first == second or (first != first and second != second), f"{place}: {first} != {second}"


STATE_KEYS = ("model_state_dict", "optimizer_state_dicts", "scaler_state_dict", "rng", "position", "monitor")


def assert_same_run(straight: Path, other: Path, step: int) -> None:
    """Both folders hold the same run up to `step`: its state, its metrics, its curves."""
    states = [torch.load(folder / f"checkpoint_step_{step}.pt") for folder in (straight, other)]
    for state in states:
        for name in CLOCK_DETECTORS:
            state["monitor"]["detectors"].pop(name, None)
    for key in STATE_KEYS:
        assert_same(states[0][key], states[1][key], key)
    assert_same(metrics_of(straight), metrics_of(other), "metrics")
    assert_same(curves_of(straight), curves_of(other), "curves")
    assert evaluated_steps(straight) == evaluated_steps(other)
