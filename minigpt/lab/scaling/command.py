"""The command line of `scripts/bench_scaling.py`."""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minigpt.errors import ConfigError, MissingExtraError
from minigpt.lab.bench.command import check_can_write
from minigpt.lab.bench.shapes import SHAPES, Terms
from minigpt.lab.scaling.measure import TURN, measure_long_run, measure_series
from minigpt.lab.scaling.report import drift, long_run_text, plot, series_text
from minigpt.lab.scaling.series import HEAD_DIM, all_series
from minigpt.lab.script import say

DEPTHS, WIDTHS, CONTEXTS = (2, 4, 8, 16), (128, 256, 512, 1024), (64, 256, 1024, 2048)


def run(arguments: Sequence[str], description: str) -> None:
    """Measure what `arguments` ask for; print, plot and write it.

    Raises:
        MiniGPTError: a mistake of the user's, or a run that failed.
    """
    given = _parser(description).parse_args(arguments)
    _check(given)
    terms = Terms(
        SHAPES["tiny"],
        precision=given.precision,
        compile=given.compile == "on",
        device=given.device,
        source=given.source,
        cache_dir=given.cache_dir,
        tokenizer=given.tokenizer,
    )
    found: dict[str, Any] = {"terms": terms.to_json(), "threads": given.threads}
    measured = []
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="minigpt-scaling-", ignore_cleanup_errors=True)
            )
        )
        long_run = measure_long_run(
            terms, given.long_run, threads=given.threads, folder=folder / "long", say=say
        )
        print(long_run_text(long_run), end="\n\n", flush=True)
        found["long_run"] = {"seconds_per_step": long_run, "steps_each": TURN, "drift": drift(long_run)}
        for number, series in enumerate(all_series(given.depths, given.widths, given.contexts)):
            costs = measure_series(
                series,
                terms,
                rounds=given.rounds,
                steps=given.steps,
                threads=given.threads,
                folder=folder / str(number),
                say=say,
            )
            print(series_text(series, costs), end="\n\n", flush=True)
            measured.append((series, costs))
            found[series.name] = [asdict(cost) for cost in costs]
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.plot is not None:
        plot(given.plot, long_run, measured)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long-run", type=int, default=2000, metavar="STEPS", help="(default: 2000)")
    for name, values in (("depths", DEPTHS), ("widths", WIDTHS), ("contexts", CONTEXTS)):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=values, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each shape (default: 3)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn (default: 3)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--compile", choices=("on", "off"), default="off")
    parser.add_argument(
        "--threads", type=int, default=None, help="OMP_NUM_THREADS of all (default: as it is)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--source", default="python-stdlib", help="data.source (default: python-stdlib)")
    parser.add_argument("--tokenizer", choices=("bpe", "bytes"), default="bpe")
    parser.add_argument("--cache-dir", default=None, help="data.cache_dir")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="all figures as JSON")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE", help=".svg, .png or .pdf")
    return parser


def _check(given: argparse.Namespace) -> None:
    check_can_write(given.output, "--output")
    check_can_write(given.plot, "--plot")
    if given.long_run < 2 * TURN:
        raise ConfigError(f"--long-run {given.long_run}: too short to compare; use {2 * TURN} or more")
    for name in ("rounds", "steps", "threads"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: too few; use 1 or more")
    for name in ("depths", "widths", "contexts"):
        unit = HEAD_DIM if name == "widths" else 1
        wrong = [value for value in getattr(given, name) if value < 1 or value % unit]
        if wrong:
            raise ConfigError(f"--{name} {wrong[0]}: cannot be; use a multiple of {unit}")
    if given.plot is not None and given.plot.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(
            f"--plot {given.plot}: no format of a plot; use a name that ends in .svg, .png or .pdf"
        )
    if given.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("the plot", "matplotlib", "bench")
