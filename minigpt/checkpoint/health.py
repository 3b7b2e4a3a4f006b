"""Which checkpoints were taken while all was well: what they say of themselves, read without their tensors.

A damaged one says nothing: it is not gone back to, and nothing is deleted for its sake.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.checkpoint.content import glance_at_checkpoint
from minigpt.checkpoint.damage import DamagedError, said_of
from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.errors import CheckpointError
from minigpt.training_monitor.policy_config import HARMLESS, STRUCTURAL


@dataclass(frozen=True)
class Health:
    """What a checkpoint says of the run's health when it was taken."""

    path: Path
    step: int
    open_findings: dict[str, str]
    """Name -> suspected | sustained."""
    trouble_since: int | None = None
    """The first bad step of what was open and came over a healthy run, often told only later."""

    @property
    def healthy(self) -> bool:
        """Whether nothing was open that casts doubt on the weights."""
        return self.but_for(())

    def but_for(self, names: Collection[str]) -> bool:
        """Whether it would be healthy without the findings of these `names`."""
        return self.open_findings.keys() <= {*HARMLESS, *names}


def health_mark(open_findings: dict[str, str], trouble_since: int | None) -> dict[str, Any]:
    """What a checkpoint holds of it."""
    healthy = open_findings.keys() <= HARMLESS
    return {"open_findings": open_findings, "trouble_since": trouble_since, "healthy": healthy}


def read_health(path: Path) -> Health | None:
    """The mark of a checkpoint; None where there is none to trust: the file is gone, damaged or has none."""
    try:
        return _health(path)
    except CheckpointError:
        return None


def last_healthy(run_dir: Path) -> Health | None:
    """The newest healthy checkpoint of a run folder."""
    return next(healthy_newest_first(run_dir), None)


def healthy_newest_first(run_dir: Path, damaged: list[str] | None = None) -> Iterator[Health]:
    """The checkpoints taken in health, but for those that later ones know to have been in trouble already.

    `damaged` gets a line for each that is passed over because it cannot be read.
    """
    since: int | None = None
    for health in _newest_first(run_dir, damaged):
        since = min((at for at in (since, health.trouble_since) if at is not None), default=None)
        if health.healthy and (since is None or health.step < since):
            yield health


def before_trouble(run_dir: Path, since: int | None, quarantine_steps: int) -> Iterator[Health]:
    """Checkpoints to go back to from trouble whose first bad step was `since` (None: that might come), best first.

    The newest first, but those of the last `quarantine_steps` before it only when there is no other: what became
    visible then had begun before. Faults of the code do not count: each checkpoint has them.
    """
    kept_back = []
    for health in _newest_first(run_dir):
        if (since is not None and health.step >= since) or not health.but_for(STRUCTURAL):
            continue
        if since is not None and health.step > since - 1 - quarantine_steps:
            kept_back.append(health)
        else:
            yield health
    yield from kept_back


def _newest_first(run_dir: Path, damaged: list[str] | None = None) -> Iterator[Health]:
    for path in reversed(checkpoints_by_step(run_dir).values()):
        try:
            yield _health(path)
        except CheckpointError as error:
            if damaged is not None:
                damaged.append(said_of(path, error))


def _health(path: Path) -> Health:
    """The mark of a whole checkpoint: a damaged one's would say that all is well where nothing can be read."""
    state = glance_at_checkpoint(path)
    found, since = state.get("open_findings"), state.get("trouble_since")
    if not isinstance(found, dict) or not isinstance(since, int | None):
        raise DamagedError(path, "it does not say whether all was well")
    return Health(path, state["step"], dict(found), since)
