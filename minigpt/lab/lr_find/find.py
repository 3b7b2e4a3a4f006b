"""`lab lr-find`: the learning-rate range test on a configuration, a suggestion, and trainings that confirm it.

Range test: Smith 2017 (arXiv 1506.01186), with the exponential ramp that came after it.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from minigpt.config.load import load_config
from minigpt.distributed.device import resolve_device
from minigpt.errors import ConfigError
from minigpt.lab.experiments.experiment import Results
from minigpt.lab.lr_find.confirm import Tried, best_of, beyond, confirmed, to_try, trials
from minigpt.lab.lr_find.report import LrFindReport
from minigpt.lab.lr_find.rule import suggest
from minigpt.lab.lr_find.sweep import Progress, ramp, swept

FROM, TO, STEPS = 1e-5, 1.0, 120
"""Five decades: below what teaches anything in so few steps, and above what any optimizer here bears."""
LEAST_STEPS = 20
CONFIRM_STEPS, SEEDS = 200, 3
MOST_TRIED = 6
"""Rates that are trained with, those further on included."""


def lr_find(
    config_name: str,
    overrides: Sequence[str],
    folder: Path,
    *,
    command: str = "minigpt lab lr-find",
    from_: float = FROM,
    to: float = TO,
    steps: int = STEPS,
    seeds: int = SEEDS,
    confirm_steps: int = CONFIRM_STEPS,
    processes: int | None = None,
    progress: Progress = lambda line: None,
) -> LrFindReport:
    """The range test of a preset or YAML file with overrides, and `seeds` trainings of `confirm_steps` steps at each of
    the suggestion, a quarter and four times of it, and the configured rate; and further on for as long as the best of
    them is the lowest or highest (MOST_TRIED).

    All of it lands in `folder` and is read again where it was done before; `seeds` = 0 leaves the trainings out, and
    `processes` = None runs one a core, or one on a GPU. Nothing but the cache of prepared text is written elsewhere.

    `command` is what the report says it is from.

    Raises:
        MiniGPTError: a mistake of the user's, or an interrupt; what was done is kept.
    """
    _check(from_, to, steps, seeds, confirm_steps)
    found = load_config(config_name, overrides)
    config = found.config
    folder.mkdir(parents=True, exist_ok=True)
    sweep = swept(config, ramp(from_, to, steps), folder, progress)
    suggestion = suggest(sweep)
    configured = config.optimizer.learning_rate
    tried = to_try(suggestion.rate, configured) if seeds else []
    on_cpu = resolve_device(config.training.device).type == "cpu"
    cores = os.cpu_count() or 1
    at_once = processes or (cores if on_cpu else 1)
    threads = max(1, cores // at_once)

    def trained(some: Sequence[Tried]) -> Results:
        wanted = trials(config, some, folder, steps=confirm_steps, seeds=seeds, threads=threads)
        return confirmed(wanted, at_once, progress)

    results = {**trained(tried)} if tried else {}
    while results and suggestion.rate is not None and len(tried) < MOST_TRIED:
        further = beyond(tried, results)
        if further is None:
            break
        progress(
            f"the best so far, {best_of(tried, results).name}, is the last on its side: {further.name} as well"
        )
        tried = sorted([*tried, further], key=lambda one: one.rate)
        results |= trained([further])
    return LrFindReport(
        command=command,
        config_name=found.name,
        optimizer=config.optimizer.name,
        sweep=sweep,
        suggestion=suggestion,
        configured=configured,
        tried=tuple(tried),
        results=results,
        confirm_steps=confirm_steps,
        max_steps=config.training.max_steps,
    )


def _check(from_: float, to: float, steps: int, seeds: int, confirm_steps: int) -> None:
    if not 0 < from_ < to:
        raise ConfigError(f"--from {from_:g} --to {to:g}: the rate has to rise, from above 0")
    if steps < LEAST_STEPS:
        raise ConfigError(
            f"--steps {steps} is too few to see where the loss falls and rises; use {LEAST_STEPS} or more"
        )
    if seeds < 0 or confirm_steps < 1:
        raise ConfigError(
            f"--seeds {seeds} and --confirm-steps {confirm_steps}: use 0 or more, and 1 or more"
        )
