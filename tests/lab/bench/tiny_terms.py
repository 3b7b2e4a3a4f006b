"""Terms so small that a test can afford to train every contender, and a gate that needs no other process."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from minigpt.lab.bench.gate import Gate
from minigpt.lab.bench.shapes import SHAPES, Terms
from tests.training.tiny_run import text_of


def tiny_terms(folder: Path, **changes: Any) -> Terms:
    """The tiny shape on a corpus of bytes in `folder`, fp32 and eager."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(10):
        (corpus / f"{number}.txt").write_text(text_of(number), encoding="utf-8")
    settings: dict[str, Any] = {"precision": "fp32", "compile": False, "tokenizer": "bytes"}
    return Terms(
        SHAPES["tiny"], source=str(corpus), cache_dir=str(folder / "cache"), **{**settings, **changes}
    )


class OpenGate(Gate):
    """A gate whose parent asked for all its turns beforehand; `answers` is what it was told."""

    def __init__(self, *turns: tuple[int, int]) -> None:
        """`turns`: steps and warm steps of each."""
        commands = [json.dumps({"steps": steps, "warm": warm}) for steps, warm in turns]
        self._told_to, self.clock = io.StringIO(), 0.0
        super().__init__(
            io.StringIO("\n".join([*commands, '{"stop": true}'])), self._told_to, torch.device("cpu"), 0.0
        )

    def _now(self) -> float:
        return self.clock

    @property
    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._told_to.getvalue().splitlines()]
