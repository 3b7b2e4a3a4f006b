"""A tiny model trained for many real steps with everything on, watched for what grows."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import yaml

from minigpt.config.load import load_config
from minigpt.data.loader import StepBatches
from minigpt.data.prepare import prepare
from minigpt.distributed.world import World
from minigpt.lab.soak.marks import Mark, Marks
from minigpt.training.build import build_run
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupt
from minigpt.training.loop import train
from minigpt.training.records import open_records
from minigpt.training.run import Run
from minigpt.training.save import save

SETTINGS: dict[str, dict[str, Any]] = {
    "model": {
        "num_layers": 1,
        "hidden_size": 8,
        "num_heads": 1,
        "intermediate_size": 16,
        "context_length": 8,
    },
    "data": {"tokenizer": {"kind": "bytes"}, "validation_fraction": 0.2, "num_workers": 1},
    "schedule": {"warmup_steps": 50},
    "training": {
        "tokens_per_step": 16,
        "micro_batch_size": 2,
        "mixed_precision": "off",
        "compile": "off",
        "eval_every_steps": 200,
        "eval_tokens": 64,
        "log_every_steps": 10,
        "sample_tokens": 0,
        "device": "cpu",
        "check_grad_flow": True,
        "check_grad_flow_every": 50,
    },
    "checkpoint": {"every_steps": 250, "every_minutes": None, "keep_last": 2},
}


def soak(folder: Path, steps: int, every: int, overrides: Sequence[str] = ()) -> list[Mark]:
    """Train `steps` steps in `folder` (which becomes the current one), a mark `every` steps."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number in range(20):
        (corpus / f"{number}.txt").write_text(f"{number} red and {number * 7919} green bottles. " * 40)
    data = {**SETTINGS["data"], "source": str(corpus), "cache_dir": str(folder / "cache")}
    (folder / "soak.yaml").write_text(yaml.safe_dump({**SETTINGS, "data": data}), encoding="utf-8")
    config = load_config(str(folder / "soak.yaml"), [f"training.max_steps={steps}", *overrides]).config
    marks = Marks()
    with ExitStack() as stack:
        world = World(rank=0, size=1, device=torch.device("cpu"))
        run_dir = folder / "run"
        run_dir.mkdir()
        run = build_run(
            Order("soak", run_dir, config),
            prepare(config.data, progress=False),
            world,
            Interrupt(),
            stack,
            None,
        )
        open_records(run, stack)
        save(run, "the beginning")
        _marked(run, marks, every)
        train(run)
        marks.take(run.position.step)
    return marks.marks


def _marked(run: Run, marks: Marks, every: int) -> None:
    """Take a mark before every `every`-th step, where the run is at rest."""
    next_step = run.loader.next_step

    def watched() -> StepBatches:
        if run.position.step and run.position.step % every == 0:
            marks.take(run.position.step)
        return next_step()

    run.loader.next_step = watched  # type: ignore[method-assign]
