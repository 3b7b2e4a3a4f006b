"""The runs that are compared, each in a folder of its own, made of one leg or of several."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.files import checkpoint_path, checkpoints_by_step
from minigpt.config.run_config import RunConfig
from minigpt.lab.same_run import Comparison, compare_runs
from minigpt.lab.verify_resume.leg import Leg
from minigpt.lab.verify_resume.process import COMMAND, run_leg
from minigpt.lab.verify_resume.rhythm import Rhythm
from minigpt.lab.verify_resume.suspects import Remedy
from minigpt.planning.eta import duration_text
from minigpt.training.interrupt import Interrupt

Say = Callable[[str], None]
AS_IT_IS = Remedy()


@dataclass(frozen=True)
class Question:
    """Whose resume is to be verified: a configuration as `minigpt train` is given it."""

    config_name: str
    overrides: tuple[str, ...]
    steps: int
    output: Path | None
    """Where the temporary folder is made."""
    command: Sequence[str] = field(default=COMMAND)
    """What starts a leg."""


@dataclass(frozen=True)
class Runs:
    """Trains the runs of a question in `place`, and says what it does."""

    question: Question
    config: RunConfig
    rhythm: Rhythm
    place: Path
    say: Say
    interrupt: Interrupt

    def folder(self, name: str) -> Path:
        return (self.place / name.replace(" ", "_")).absolute()

    def compare(self, first: str, second: str) -> Comparison:
        """The two runs of these names."""
        return compare_runs(self.folder(first), self.folder(second), self.rhythm.steps)

    def state(self, name: str) -> dict[str, Any]:
        """The last checkpoint of a run, mapped rather than read."""
        path = checkpoint_path(self.folder(name), self.rhythm.steps)
        state: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return state

    def straight(self, name: str, remedy: Remedy = AS_IT_IS) -> float:
        """Train a run in one go, and keep its last checkpoint alone; the seconds it took."""
        seconds = self._leg(name, name, None, signal.SIGTERM, remedy=remedy)
        self._tell(name, f"{self.rhythm.steps} steps in {duration_text(seconds)}")
        last = checkpoint_path(self.folder(name), self.rhythm.steps)
        for path in checkpoints_by_step(self.folder(name)).values():
            if path != last:
                path.unlink()
        return seconds

    def interrupted(self, name: str) -> tuple[int, int]:
        """Train a run in three goes, killed after the first and terminated after the second; the steps that it was
        resumed from."""
        kill, terminate = self.rhythm.kill_in, self.rhythm.terminate_in
        self._leg(name, name, kill, signal.SIGKILL)
        self._tell(name, f"SIGKILL in step {kill}")
        first = self._resumed(name, terminate)
        self._tell("", f"SIGTERM in step {terminate}")
        return first, self._resumed(name, None)

    def _resumed(self, name: str, until: int | None) -> int:
        newest = max(checkpoints_by_step(self.folder(name)))
        self._tell("resumed", f"from step {newest}")
        self._leg(name, f"{name} from {newest}", until, signal.SIGTERM, resume=True)
        return newest

    def _leg(
        self,
        name: str,
        title: str,
        until: int | None,
        by: signal.Signals,
        *,
        resume: bool = False,
        remedy: Remedy = AS_IT_IS,
    ) -> float:
        last = None if self.rhythm.finishes else self.rhythm.steps
        leg = Leg(
            config_name=self.question.config_name,
            overrides=(*self.question.overrides, *remedy.overrides, *self.rhythm.settings(self.config)),
            folder=str(self.folder(name)),
            resume=resume,
            signal_in_step=until or last,
            signal=int(by),
        )
        command, variables = self.question.command, remedy.environment
        return run_leg(title, leg, self.rhythm.steps, self.interrupt, environment=variables, command=command)

    def _tell(self, name: str, what: str) -> None:
        self.say(f"  {name:<15} {what}")
