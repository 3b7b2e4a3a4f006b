"""Two straight runs and an interrupted one, compared to the last bit."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.prepare import prepare
from minigpt.data.progress import PreparationStoppedError
from minigpt.distributed.device import device_title, resolve_device
from minigpt.distributed.world import World, ranks_from_environment
from minigpt.errors import ConfigError
from minigpt.lab.same_run import Comparison
from minigpt.lab.verify_resume.process import LegFailedError
from minigpt.lab.verify_resume.rhythm import rhythm_of
from minigpt.lab.verify_resume.runs import Question, Runs, Say
from minigpt.lab.verify_resume.suspects import Remedy, remedies
from minigpt.lab.verify_resume.words import (
    equal_words,
    plan_words,
    resumed_unequal_words,
    straight_unequal_words,
)
from minigpt.planning.eta import duration_text
from minigpt.planning.memory import memory_report
from minigpt.planning.plan import bytes_text
from minigpt.training.build import workload
from minigpt.training.interrupt import Interrupt, Interrupted, caught_signals
from minigpt.training.precision import resolve_precision

NOT_EXACT = 3
TO_GO = 2.6
"""What is left after the first run, in its own durations: another, and one with two more beginnings."""


@dataclass(frozen=True)
class Verdict:
    """How it came out, in words."""

    is_exact: bool
    lines: list[str]


def verify_resume(question: Question, say: Say) -> int:
    """Train, and tell how it came out; the exit code: 0 bit-exact, 3 not, 128 + signal interrupted.

    Raises:
        MiniGPTError: the run cannot be made, or is too short to be interrupted.
    """
    found = load_config(question.config_name, question.overrides)
    rhythm = rhythm_of(found.config, question.steps)
    if ranks_from_environment()[2] > 1:
        raise ConfigError("verify-resume trains on one rank; start it without torchrun")
    resolve_device(found.config.training.device)
    with caught_signals() as interrupt:
        try:
            checkpoint_bytes = _checkpoint_bytes(found.config, interrupt)
            with _place_to_train(question.output, found.name) as (place, keep):
                runs = Runs(question, found.config, rhythm, place, say, interrupt)
                verdict = _verdict(runs, found.name, checkpoint_bytes)
                if not verdict.is_exact:
                    keep()
        except (Interrupted, PreparationStoppedError):
            say("interrupted: nothing was verified, and what was trained is removed")
            return interrupt.exit_code
    for line in verdict.lines:
        say(line)
    if not verdict.is_exact:
        say(f"  the runs are kept in {place}")
    return 0 if verdict.is_exact else NOT_EXACT


def _verdict(runs: Runs, name: str, checkpoint_bytes: int) -> Verdict:
    config, say = runs.config, runs.say
    for line in plan_words(name, config, runs.rhythm, device_title(resolve_device(config.training.device))):
        say(line)
    _check_disk(runs, checkpoint_bytes)
    seconds = runs.straight("straight")
    say(f"  about {duration_text(TO_GO * seconds)} to go")
    runs.straight("straight again")
    twice = runs.compare("straight", "straight again")
    if not twice.is_same:
        return Verdict(False, _why_unequal(runs, twice))
    resumed_from = runs.interrupted("interrupted")
    resumed = runs.compare("straight", "interrupted")
    if not resumed.is_same:
        return Verdict(False, list(resumed_unequal_words(resumed, resumed_from)))
    return Verdict(True, list(equal_words(resumed, runs.state("straight"))))


def _why_unequal(runs: Runs, twice: Comparison) -> list[str]:
    """The verdict on two straight runs that differ, once what may help has been tried."""
    pair = runs.folder("straight"), runs.folder("straight again")
    runs.say("two straight runs differ; looking for what makes them equal ...")
    helped: str | None = None
    tried: list[Remedy] = []
    for number, remedy in enumerate(
        remedies(runs.state("straight"), resolve_device(runs.config.training.device).type), 1
    ):
        runs.say(f"  with {remedy.typed}:")
        names = [f"try {number}{letter}" for letter in "ab"]
        for name in names:
            runs.straight(name, remedy)
        tried.append(remedy)
        if runs.compare(names[0], names[1]).is_same:
            asked = runs.question
            helped = remedy.command(asked.config_name, asked.overrides, asked.steps)
            break
    return list(straight_unequal_words(pair, twice, helped=helped, tried=tried))


def _checkpoint_bytes(config: RunConfig, interrupt: Interrupt) -> int:
    """Of one checkpoint; the corpus is prepared for it, as `minigpt train` would."""
    device = resolve_device(config.training.device)
    with interrupt.at_once():
        prepared = prepare(config.data, should_stop=lambda: bool(interrupt))
    precision = resolve_precision(config.training.mixed_precision, device)
    return memory_report(
        workload(config, World(0, 1, device), precision, prepared.manifest.vocab_size, 1)
    ).checkpoint_file


def _check_disk(runs: Runs, checkpoint_bytes: int) -> None:
    """Say how much disk it takes.

    Raises:
        ConfigError: there is not as much.
    """
    retention = runs.config.checkpoint
    on_grid = runs.rhythm.steps // retention.keep_every_steps if retention.keep_every_steps else 0
    # The last ones of the straight runs; of the third one what retention keeps, the best and the last healthy one, and
    # one that is being written.
    wanted = (2 + retention.keep_last + on_grid + 2 + 1) * checkpoint_bytes
    free = shutil.disk_usage(runs.place).free
    if free < wanted:
        raise ConfigError(
            f"verify-resume takes up to {bytes_text(wanted)} of checkpoints, and the disk of {runs.place.parent} has "
            f"{bytes_text(free)} left; name another with --output"
        )
    runs.say(f"  up to {bytes_text(wanted)} in {runs.place} ({bytes_text(free)} free), removed in the end")


@contextmanager
def _place_to_train(output: Path | None, name: str) -> Iterator[tuple[Path, "_Keep"]]:
    """A temporary folder beside the runs, or in `output`; it stays where it is asked to, and where a leg failed."""
    parent = output or Path("checkpoints")
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    place, keep = Path(tempfile.mkdtemp(prefix=f"verify_resume_{name}_", dir=parent)), _Keep()
    try:
        yield place, keep
    except LegFailedError:
        keep()
        raise
    finally:
        if not keep.asked:
            shutil.rmtree(place, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()


class _Keep:
    """Called, it has the folder stay."""

    asked = False

    def __call__(self) -> None:
        self.asked = True
