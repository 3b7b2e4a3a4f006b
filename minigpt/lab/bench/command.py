"""The command line of `scripts/bench_training.py`."""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError
from minigpt.lab.bench.contenders import OURS, PEERS, Contender, chosen
from minigpt.lab.bench.match import assembled, play
from minigpt.lab.bench.shapes import PRESETS, SHAPES, Shape, Terms, shape_named
from minigpt.lab.bench.summary import as_json
from minigpt.lab.bench.table import report
from minigpt.lab.script import say


def run(arguments: Sequence[str], description: str) -> None:
    """Play the matches that `arguments` ask for, and print (or write) what was measured.

    Raises:
        MiniGPTError: a mistake of the user's, or a contender that left.
    """
    given = _parser(description).parse_args(arguments)
    contenders, left_out = chosen(given.contenders)
    for line in left_out:
        say(line)
    shapes = [_sized(shape, given) for shape in _shapes(given)]
    check_can_write(given.output, "--output")
    matches = [_played(shape, contenders, given) for shape in shapes]
    if given.output is not None:
        given.output.write_text(
            json.dumps({"machine": _machine(), "command": list(arguments), "matches": matches}, indent=1)
            + "\n",
            encoding="utf-8",
        )


def _played(shape: Shape, contenders: Sequence[Contender], given: argparse.Namespace) -> dict[str, Any]:
    """The match on one shape, printed; what --output says of it."""
    terms = Terms(
        shape,
        precision=given.precision,
        compile=given.compile == "on",
        device=given.device,
        source=given.source,
        cache_dir=given.cache_dir,
        tokenizer=given.tokenizer,
    )
    # A checkpoint before the first step lies there for each run: gone with the match.
    with tempfile.TemporaryDirectory(prefix="minigpt-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cold = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")} if given.cold else {}
        with assembled(
            contenders, terms, threads=given.threads, folder=folder, say=say, environment=cold
        ) as field:
            match = play(field, rounds=given.rounds, steps=given.steps, say=say)
    print(report(match), end="\n\n", flush=True)
    return as_json(match)


def check_can_write(path: Path | None, option: str) -> None:
    """Nothing, where `path` (None: not asked for) can be written: not found out after minutes of measuring.

    Raises:
        ConfigError: its folder is missing or closed, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigError(
            f"{option} {path}: no file can be written there; name one in a folder that is there"
        )


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default=None, help="shapes of a preset (default: small)")
    parser.add_argument(
        "--shape",
        action="append",
        metavar="NAME",
        help=f"{', '.join(SHAPES)}, or LAYERSxHIDDEN@CONTEXT/VOCABULARY; can be repeated",
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join([*OURS, *PEERS])}; MiniGPT's also as NAME:section.key=value,... and NAME@FOLDER",
    )
    parser.add_argument(
        "--rounds", type=int, default=8, help="0: only build, compile and one step (default: 8)"
    )
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a turn (default: 5)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument(
        "--cold", action="store_true", help="compile with an empty cache: what a first run waits"
    )
    parser.add_argument(
        "--threads", type=int, default=None, help="OMP_NUM_THREADS of all (default: as it is)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--micro-batch", type=int, default=None, metavar="N", help="sequences of one forward")
    parser.add_argument("--accumulate", type=int, default=None, metavar="N", help="micro-batches of a step")
    parser.add_argument("--source", default="python-stdlib", help="data.source (default: python-stdlib)")
    parser.add_argument("--tokenizer", choices=("bpe", "bytes"), default="bpe")
    parser.add_argument("--cache-dir", default=None, help="data.cache_dir")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="all figures as JSON")
    return parser


def _shapes(given: argparse.Namespace) -> list[Shape]:
    names = PRESETS[given.preset] if given.preset else ()
    return [shape_named(name) for name in [*names, *(given.shape or ())] or ["small"]]


def _sized(shape: Shape, given: argparse.Namespace) -> Shape:
    for name in ("rounds", "steps", "threads", "micro_batch", "accumulate"):
        value, least = getattr(given, name), 0 if name == "rounds" else 1
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: too few; use {least} or more")
    return replace(
        shape,
        micro_batch_size=given.micro_batch or shape.micro_batch_size,
        grad_accum_steps=given.accumulate or shape.grad_accum_steps,
    )


def _machine() -> dict[str, Any]:
    packages = ("torch", "transformers", "litgpt", "accelerate", "minigpt")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": platform.processor(),
        **{name: version for name in packages if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
