"""The trainings that are killed: one a kind of state that a resume has to bring back."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.lab.torture.victim import Prelude

NAME = "tiny"
STEPS = 20
WORDS = (
    "the",
    "one",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "sees",
    "likes",
    "red",
    "old",
    "and",
    "in",
    "near",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 32,
        "context_length": 16,
        "dropout": 0.1,
    },
    "data": {"tokenizer": {"kind": "bytes"}, "validation_fraction": 0.2, "num_workers": 1},
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"warmup_steps": 4},
    "training": {
        "max_steps": STEPS,
        "tokens_per_step": 128,
        "micro_batch_size": 4,
        "mixed_precision": "off",
        "compile": "off",
        "eval_every_steps": 3,
        "eval_tokens": 256,
        "log_every_steps": 4,
        "sample_tokens": 8,
        "device": "cpu",
        "check_grad_flow": True,
        "check_grad_flow_every": 5,
    },
    "checkpoint": {"every_steps": 4, "every_minutes": None},
    # What the clock and the process's memory say is no two runs' own.
    "monitor": {"throughput_drop": {"enabled": False}, "memory_growth": {"enabled": False}},
}


@dataclass(frozen=True)
class Case:
    """A training by its settings."""

    name: str
    sets: tuple[str, ...] = ()
    prelude: Prelude | None = None
    same_checkpoints: bool = True
    """Whether the steps alone decide which checkpoints stay: no clock does."""
    goes_back: bool = False
    """Whether the run is rolled back by itself, so that its newest checkpoint may become an older one."""
    weight: int = 1
    """How often it is taken, beside the others."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        own = [text.partition("=")[2] for text in self.sets if text.startswith("training.max_steps=")]
        return int(own[-1]) if own else STEPS

    def started(self, workshop: Path, run_dir: Path) -> list[str]:
        """The words after `minigpt` that start it."""
        sets = [word for text in self.sets for word in ("--set", text)]
        return ["train", "--config", str(workshop / f"{NAME}.yaml"), "--run-dir", str(run_dir), *sets]


def write_workshop(folder: Path) -> None:
    """A corpus of some thousand bytes and the configuration that all cases share."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        (corpus / f"{number}.txt").write_text(_text(number), encoding="utf-8")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "source": str(corpus)}}
    # JSON is YAML.
    (folder / f"{NAME}.yaml").write_text(json.dumps(settings), encoding="utf-8")


def _text(number: int, words: int = 60) -> str:
    """The same text for a number on every machine: words picked by a linear congruential generator."""
    state, picked = number + 1, []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        picked.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(picked) + "\n"
