"""The range test: one training whose learning rate rises exponentially, and its loss at each step."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minigpt import __version__
from minigpt.atomic import write_text_atomically
from minigpt.config.dump import to_yaml
from minigpt.config.run_config import RunConfig
from minigpt.data.prepare import prepare
from minigpt.data.progress import PreparationStoppedError
from minigpt.distributed.world import joined_world
from minigpt.lab.experiments.outcome import RISE, SMOOTHED_STEPS, mean_loss
from minigpt.lab.experiments.trial import TrialInterruptedError
from minigpt.lab.where import where
from minigpt.training.build import build_run
from minigpt.training.identity import Order
from minigpt.training.interrupt import Interrupted, caught_signals
from minigpt.training.out_of_memory import within_memory
from minigpt.training.run import Run
from minigpt.training.step import StepResult, train_step
from minigpt.training.supply import next_batches

KEPT_AS = "range_test.json"
Progress = Callable[[str], None]
"""Is told a line now and then."""


@dataclass(frozen=True)
class Sweep:
    """A range test: losses in nats a token, before the update at the rate of the same place."""

    rates: tuple[float, ...]
    losses: tuple[float | None, ...]
    """As many as there are steps done; None where the loss was not finite, which can only be the last."""
    where: str = ""
    """Hardware, software and day."""

    @property
    def diverged(self) -> bool:
        """Whether it ended because the loss was not finite or rose by RISE."""
        return has_diverged(self.losses)


def ramp(first: float, last: float, steps: int) -> list[float]:
    """`steps` rates from `first` to `last`, each the same factor above the one before."""
    return [first * (last / first) ** (step / max(1, steps - 1)) for step in range(steps)]


def has_diverged(losses: Sequence[float | None]) -> bool:
    """Whether the newest loss is not finite, or the newest mean of SMOOTHED_STEPS is RISE nats above the lowest."""
    if not losses:
        return False
    if losses[-1] is None:
        return True
    ends = range(SMOOTHED_STEPS, len(losses) + 1)
    means = [mean_loss(losses[end - SMOOTHED_STEPS : end]) for end in ends]
    return bool(means) and means[-1] > min(means) + RISE


def swept(config: RunConfig, rates: list[float], folder: Path, progress: Progress) -> Sweep:
    """The range test of `config` at `rates`, read again where `folder` has it already.

    Batch, model, optimizer and precision are those of `config`; its own rate and schedule are not used.

    Raises:
        MiniGPTError: the configuration or its corpus cannot be used, or the user interrupted it.
    """
    asked = json.dumps([to_yaml(config), rates, f"minigpt {__version__}", f"torch {torch.__version__}"])
    kept = _kept(folder / KEPT_AS, asked)
    if kept is not None:
        progress("range test: done before, read again")
        return kept
    order = Order("lr-find", folder / "range_test", config)
    with ExitStack() as stack:
        interrupt = stack.enter_context(caught_signals())
        world = stack.enter_context(joined_world(config.training.device))
        try:
            with interrupt.at_once():
                prepared = prepare(config.data, should_stop=lambda: bool(interrupt))
        except (Interrupted, PreparationStoppedError):
            raise _interrupted() from None
        run = build_run(order, prepared, world, interrupt, stack, None)
        found = _climb(run, rates, progress)
    values = {"asked": asked, **asdict(found)}
    write_text_atomically(folder / KEPT_AS, json.dumps(values, allow_nan=False) + "\n")
    return found


def _climb(run: Run, rates: list[float], progress: Progress) -> Sweep:
    losses: list[float | None] = []
    for step, lr in enumerate(rates, 1):
        result = within_memory(run, f"step {step} of the range test", partial(_stepped, run, lr))
        if result is None or run.interrupt:
            raise _interrupted()
        loss = float(result.numbers[0])
        losses.append(loss if math.isfinite(loss) else None)
        if step % max(1, len(rates) // 10) == 0:
            progress(f"range test: step {step}/{len(rates)}, rate {lr:.2g}, loss {loss:.3f}")
        if has_diverged(losses):
            progress(f"range test: diverged at step {step}, rate {lr:.2g}")
            break
    return Sweep(tuple(rates[: len(losses)]), tuple(losses), where(run.world.device))


def _stepped(run: Run, lr: float) -> StepResult | None:
    batches = next_batches(run)
    if batches is None:
        return None
    result = train_step(run, batches, lr)
    # Where a smaller micro-batch would go on, should the next step not fit.
    run.position.step, run.position.window = run.position.step + 1, batches.next_position
    return result


def _interrupted() -> TrialInterruptedError:
    return TrialInterruptedError("interrupted; the same command begins the range test again")


def _kept(path: Path, asked: str) -> Sweep | None:
    """The range test that was asked for, if it is the one in the file."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or values.get("asked") != asked:
        return None
    return Sweep(tuple(values["rates"]), tuple(values["losses"]), values.get("where", ""))
