"""One training of an experiment, from its configuration to its outcome; done once, then read."""

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minigpt import __version__
from minigpt.config.load import load_config
from minigpt.data.frequencies import unigram_loss
from minigpt.errors import MiniGPTError
from minigpt.lab.experiments.experiment import Arm, Look
from minigpt.lab.experiments.outcome import Outcome, outcome_of
from minigpt.lab.where import where
from minigpt.training.ending import STOPPED_BY_MONITOR
from minigpt.training.pretrain import pretrain
from minigpt.training.run import Run

PRESET = "small"


class TrialInterruptedError(MiniGPTError):
    """A training was interrupted; the same command goes on with the experiment."""


@dataclass(frozen=True)
class Trial:
    """A training that an experiment needs."""

    arm: Arm
    seed: int
    overrides: tuple[str, ...]
    """All of them, the arm's and the seed's among them."""
    folder: Path
    """Its own."""
    threads: int

    @property
    def asked(self) -> str:
        """What its outcome follows from, but for the code: another answer makes the old outcome useless."""
        looks = [_name(look) for look in (self.arm.before, self.arm.after)]
        return json.dumps(
            [
                PRESET,
                self.arm.name,
                *self.overrides,
                *looks,
                f"minigpt {__version__}",
                f"torch {torch.__version__}",
            ]
        )

    def kept(self) -> Outcome | None:
        """The outcome, where it was found before."""
        try:
            if (self.folder / "asked.json").read_text(encoding="utf-8") == self.asked:
                return Outcome.load(self.folder / "outcome.json")
        except (OSError, ValueError, TypeError, KeyError):
            pass  # not there, or damaged: it is trained again
        return None


def run_trial(trial: Trial) -> Outcome:
    """Train, look, judge, and keep what came of it.

    Raises:
        MiniGPTError: the configuration cannot be, or the training was interrupted.
    """
    found = trial.kept()
    if found is not None:
        return found
    shutil.rmtree(trial.folder, ignore_errors=True)
    trial.folder.mkdir(parents=True)
    torch.set_num_threads(trial.threads)
    built: list[Run] = []
    frequencies_loss = math.nan
    before: dict[str, Any] = {}
    after: Mapping[str, Any] = {}

    def look_before(run: Run) -> None:
        nonlocal frequencies_loss
        built.append(run)
        frequencies_loss = unigram_loss(run.loader.windows.tokens)
        if trial.arm.before is not None:
            before.update(trial.arm.before(run))

    with _inside(trial.folder):
        code = pretrain(PRESET, trial.overrides, Path("run"), None, when_built=look_before)
        if code not in (0, STOPPED_BY_MONITOR):
            raise TrialInterruptedError(
                f"interrupted; the same command goes on with what is left ({trial.folder})"
            )
        if trial.arm.after is not None:
            after = trial.arm.after(built[0])
        outcome = outcome_of(
            Path("run"),
            load_config(PRESET, trial.overrides).config,
            trial.arm.name,
            trial.seed,
            stopped=code == STOPPED_BY_MONITOR,
            unigram_loss=frequencies_loss,
            before=before,
            after=after,
            where=where(built[0].world.device),
        )
    for checkpoint in (trial.folder / "run").glob("*.pt"):
        checkpoint.unlink()
    outcome.save(trial.folder / "outcome.json")
    (trial.folder / "asked.json").write_text(trial.asked, encoding="utf-8")
    return outcome


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """What the training prints goes to a file, and logs/ lies in `folder`."""
    with (
        contextlib.chdir(folder),
        Path("output.txt").open("w", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        yield


def _name(look: Look | None) -> str:
    if look is None:
        return ""
    if isinstance(look, partial):
        return f"{_name(look.func)} {look.args} {sorted(look.keywords.items())}"
    return f"{look.__module__}.{getattr(look, '__qualname__', look)}"
