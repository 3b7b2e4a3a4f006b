"""Which checkpoints were taken while all was well: what they say of themselves, read without their tensors."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint.files import checkpoints_by_step
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
    """The mark of a checkpoint; None where there is none to read: the file is gone or damaged.

    Memory-mapped, so a file of gigabytes takes milliseconds. Its checksums are not looked at.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Health(path, int(state["step"]), dict(state["open_findings"]), state.get("trouble_since"))
    # As in load_checkpoint: damage surfaces as many types.
    except Exception:
        return None


def last_healthy(run_dir: Path) -> Health | None:
    """The newest healthy checkpoint of a run folder."""
    return next(healthy_newest_first(run_dir), None)


def healthy_newest_first(run_dir: Path) -> Iterator[Health]:
    """The checkpoints taken in health, but for those that later ones know to have been in trouble already."""
    since: int | None = None
    for health in _newest_first(run_dir):
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


def _newest_first(run_dir: Path) -> Iterator[Health]:
    for path in reversed(checkpoints_by_step(run_dir).values()):
        health = read_health(path)
        if health is not None:
            yield health
