"""The runs that are tortured: tiny, and together they do to a run's folder all that a run can do."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.config.load import load_config
from minigpt.data.prepare import prepare
from minigpt.training.pretrain import pretrain

STEPS = 4
_SETTINGS = {
    "model": {
        "num_layers": 1,
        "hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "context_length": 16,
    },
    "optimizer": {"learning_rate": 0.01},
    "schedule": {"warmup_steps": 2},
    "training": {
        "max_steps": STEPS,
        "tokens_per_step": 64,
        "micro_batch_size": 4,
        "mixed_precision": "off",
        "compile": "off",
        "eval_every_steps": 2,
        "eval_tokens": 64,
        "sample_tokens": 0,
        "device": "cpu",
    },
    "checkpoint": {"every_steps": 1, "every_minutes": None, "keep_last": 2, "keep_best": False},
    "monitor": {"throughput_drop": {"enabled": False}, "memory_growth": {"enabled": False}},
}


@dataclass(frozen=True)
class Workplace:
    """Folders of one try; `disk` is the one that refuses."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def run_dir(self) -> Path:
        return self.disk / "run"

    @property
    def config(self) -> str:
        return str(self.folder / "tiny.yaml")

    def set_up(self) -> None:
        """A corpus and a configuration; nothing is prepared yet."""
        (self.folder / "corpus").mkdir(parents=True)
        self.disk.mkdir()
        for number in range(6):
            text = " ".join(f"word{(number * 7 + place * place) % 23}" for place in range(80))
            (self.folder / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
        self.use_cache(self.folder / "cache")

    def use_cache(self, cache: Path) -> None:
        """From now on the prepared corpus lies there."""
        data = {
            "source": str(self.folder / "corpus"),
            "cache_dir": str(cache),
            "tokenizer": {"kind": "bytes"},
            "validation_fraction": 0.2,
            "num_workers": 1,
        }
        Path(self.config).write_text(json.dumps({**_SETTINGS, "data": data}), encoding="utf-8")

    def train(self, *overrides: str, resume: str | None = None) -> int:
        """`minigpt train` in this process; its exit code."""
        return pretrain(self.config, overrides, self.run_dir, resume)


@dataclass(frozen=True)
class Scene:
    """What is going on when the disk refuses."""

    name: str
    before: Callable[[Workplace], object]
    """Without faults: what is there already."""
    act: Callable[[Workplace, str], int]
    """The faults fall in here; the second argument is an override, checkpoint.on_write_error=..."""


def _prepared(place: Workplace) -> None:
    prepare(load_config(place.config, ()).config.data, progress=False)


def _half_done(place: Workplace) -> None:
    """As a kill leaves it that comes right before the last checkpoint."""
    place.train("checkpoint.keep_last=9")
    (place.run_dir / f"checkpoint_step_{STEPS}.pt").unlink()


def _with_cache_on_the_disk(place: Workplace) -> None:
    place.use_cache(place.disk / "cache")


SCENES = (
    Scene("a new run", _prepared, lambda place, how: place.train(how)),
    Scene("preparing the text", _with_cache_on_the_disk, lambda place, how: place.train(how)),
    Scene("a resume", _half_done, lambda place, how: place.train(how, resume="auto")),
    Scene(
        "a resume from an older checkpoint",
        _half_done,
        lambda place, how: place.train(how, resume=str(place.run_dir / "checkpoint_step_2.pt")),
    ),
    Scene("a new run where one was", _half_done, lambda place, how: place.train(how)),
)
