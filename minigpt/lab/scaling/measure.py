"""Real runs of growing shapes, and one long run, timed in turns."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from minigpt.lab.bench.contenders import contender
from minigpt.lab.bench.match import WARM_STEPS
from minigpt.lab.bench.process import Contestant
from minigpt.lab.bench.shapes import SHAPES, Shape, Terms
from minigpt.lab.bench.summary import spread
from minigpt.lab.scaling.series import Cost, Series, costs, flops_of

Say = Callable[[str], None]
TURN = 100
"""Steps that are timed together in the long run: what a single one took is the machine's mood more than the run's."""


def measure_series(
    series: Series, terms: Terms, *, rounds: int, steps: int, threads: int | None, folder: Path, say: Say
) -> list[Cost]:
    """The cost of a token for each shape: `rounds` turns of `steps` steps each, the shapes one after the other.

    Raises:
        ContenderError: a run failed.
    """
    seconds: list[list[float]] = [[] for _ in series.shapes]
    with ExitStack() as stack:
        there = _started(stack, series.shapes, terms, threads, folder)
        for number in range(rounds):
            for one, shape, taken in zip(there, series.shapes, seconds, strict=True):
                turn = one.turn(steps, WARM_STEPS)
                taken.append(turn.seconds / turn.steps / shape.tokens_per_step)
            say(f"{series.name}: round {number + 1} of {rounds}")
    flops = [flops_of(shape) for shape in series.shapes]
    return costs(series.values, flops, [spread(taken) for taken in seconds])


def measure_long_run(terms: Terms, steps: int, *, threads: int | None, folder: Path, say: Say) -> list[float]:
    """Seconds a step, a figure for each TURN steps of one run of the tiny model, without its first TURN.

    Raises:
        ContenderError: the run failed.
    """
    with ExitStack() as stack:
        (one,) = _started(stack, [SHAPES["tiny"]], replace(terms, tokenizer="bytes"), threads, folder)
        one.turn(TURN, warm=0)
        say(f"the long run: {steps} steps")
        return [one.turn(TURN, warm=0).seconds / TURN for _ in range(steps // TURN)]


def _started(
    stack: ExitStack, shapes: Sequence[Shape], terms: Terms, threads: int | None, folder: Path
) -> list[Contestant]:
    """A run of MiniGPT for each shape, standing at its first step."""
    surroundings = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    there = []
    for number, shape in enumerate(shapes):
        sized = replace(terms, shape=shape)
        one = stack.enter_context(Contestant(contender("minigpt"), sized, folder / str(number), surroundings))
        one.start()
        there.append(one)
    return there
