"""A process of its own that trains a part of a run: from its start or its newest checkpoint, until it is stopped.

python -m minigpt.lab.verify_resume.leg '{"config_name": ..., ...}'
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from minigpt.data.loader import StepBatches
from minigpt.errors import MiniGPTError
from minigpt.training.pretrain import pretrain
from minigpt.training.run import Run

USER_ERROR = 2


@dataclass(frozen=True)
class Leg:
    """What one process is to do."""

    config_name: str
    overrides: tuple[str, ...]
    folder: str
    """The run's; its parent takes logs/."""
    resume: bool
    signal_in_step: int | None
    """The step in which the process sends itself `signal`; None: it trains to the end."""
    signal: int

    def as_argument(self) -> str:
        return json.dumps(asdict(self))

    @property
    def expected_exit(self) -> int:
        """As subprocess tells it."""
        if self.signal_in_step is None:
            return 0
        return -signal.SIGKILL if self.signal == signal.SIGKILL else 128 + self.signal


def trained(leg: Leg) -> int:
    """Train the leg in this process; the exit code of `minigpt train`."""
    resume = "auto" if leg.resume else None
    # A resumed run repeats its overrides by itself, as it does for users.
    overrides = () if leg.resume else leg.overrides
    return pretrain(
        leg.config_name, overrides, Path(leg.folder), resume, when_built=lambda run: _prepare(run, leg)
    )


def _prepare(run: Run, leg: Leg) -> None:
    """Lead logs/training.log away from the user's, and have the signal come when it is due."""
    # Not before: the text and the configuration were named from the user's folder.
    os.chdir(Path(leg.folder).parent)
    next_step, parent = run.loader.next_step, os.getppid()
    sent = False

    def counted() -> StepBatches:
        nonlocal sent
        if os.getppid() != parent:
            sys.exit("the process that wanted this run is gone")
        if run.position.step + 1 == leg.signal_in_step and not sent:
            sent = True
            os.kill(os.getpid(), leg.signal)
        return next_step()

    run.loader.next_step = counted  # type: ignore[method-assign]


def main(argument: str) -> int:
    """The exit code of the leg in `argument`; a user's mistake is told as the command line does."""
    given = json.loads(argument)
    try:
        return trained(Leg(**{**given, "overrides": tuple(given["overrides"])}))
    except MiniGPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
