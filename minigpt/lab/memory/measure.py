"""Cases trained one after another, each in a process of its own, and what they took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import tokenizers
from tokenizers import models

from minigpt.data.tokenizer import END_OF_TEXT
from minigpt.errors import MiniGPTError
from minigpt.lab.memory.cases import Case
from minigpt.lab.memory.child import Measured
from minigpt.model.config import ModelConfig

STEPS = 3
"""In the second one the moments are there, the third finds the heap as a long run does."""


def measure(case: Case, folder: Path, device: str) -> Measured:
    """What the training of `case` took; `folder` gets its run, its text and what it printed.

    Raises:
        MiniGPTError: the process did not end well.
    """
    folder.mkdir(parents=True)
    config = folder / "case.yaml"
    config.write_text(json.dumps(_settings(case, folder, device)), encoding="utf-8")  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-m", "minigpt.lab.memory.child", str(config), str(folder / "run")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MiniGPTError(f"the training of '{case.name}' ended with {done.returncode}: {last}")
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def _settings(case: Case, folder: Path, device: str) -> dict[str, object]:
    context_length = ModelConfig(**case.model).context_length
    tokens_per_step = case.micro_batch_size * case.grad_accum_steps * context_length
    text = folder / "text"
    text.mkdir()
    for number in range(4):
        (text / f"{number}.txt").write_text(f"{number} " * (tokens_per_step // 2), encoding="utf-8")
    _write_tokenizer(case.vocab_size, folder / "tokenizer.json")
    return {
        "model": case.model,
        "data": {
            "source": str(text),
            "validation_fraction": 0.2,
            "cache_dir": str(folder / "cache"),
            "num_workers": 1,
            "tokenizer": {"kind": "file", "path": str(folder / "tokenizer.json")},
        },
        "optimizer": {"name": case.optimizer},
        "schedule": {"warmup_steps": 1},
        "training": {
            "max_steps": STEPS,
            "tokens_per_step": tokens_per_step,
            "micro_batch_size": case.micro_batch_size,
            "compile": "off",
            "eval_tokens": case.micro_batch_size * context_length,
            "sample_tokens": 0,
            "device": device,
            **case.training,
        },
    }


def _write_tokenizer(vocab_size: int, path: Path) -> None:
    """A tokenizer of exactly that many tokens, untrained: most of them never occur."""
    vocabulary = {END_OF_TEXT: 0, **{chr(1 + number): number for number in range(1, vocab_size)}}
    merged = {token: identity for token, identity in vocabulary.items() if identity < 0xD000}
    rest = {f"~{number}": number for number in range(0xD000, vocab_size)}
    model = models.BPE(vocab={**merged, **rest}, merges=[], unk_token=END_OF_TEXT)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.save(str(path))
