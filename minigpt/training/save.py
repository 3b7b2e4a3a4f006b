"""When a run saves itself, and what must be on disk before a checkpoint may say so."""

import time
from typing import Any

from minigpt.checkpoint.health import before_trouble, last_healthy
from minigpt.checkpoint.save import apply_retention, save_checkpoint
from minigpt.errors import CheckpointError
from minigpt.training.records import flush_records
from minigpt.training.run import Run
from minigpt.training.state import run_state
from minigpt.training_monitor.event import Event


class SaveClock:
    """Tells when `checkpoint.every_minutes` have passed since the last save."""

    def __init__(self, every_minutes: float | None) -> None:
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        return self._every_seconds is not None and time.monotonic() - self._saved_at >= self._every_seconds

    def reset(self) -> None:
        self._saved_at = time.monotonic()


def save(run: Run, reason: str) -> None:
    """Write the checkpoint of the run's present step, then let go of those that need not stay.

    The sinks reach the disk first: a checkpoint of step N vouches for N steps in metrics.jsonl and TensorBoard.
    """
    state = run_state(run)
    # The others wait, and learn of it if the disk refuses.
    run.world.on_main(lambda: _write(run, state, reason))


def _write(run: Run, state: dict[str, Any] | None, reason: str) -> None:
    assert state is not None, "only the main rank has it"
    position = run.position
    text = f"checkpoint_step_{position.step}.pt: {reason}"
    mark = {name: state[name] for name in ("healthy", "open_findings")}
    if not state["healthy"]:
        found = ", ".join(f"{name} {status}" for name, status in state["open_findings"].items())
        text += f" (marked as not healthy: {found})"
    run.sinks.event(Event(position.step, "save", "checkpoint", text, data=mark))
    try:
        state |= flush_records(run)
    except OSError as error:
        raise CheckpointError(
            f"the records in {run.run_dir} cannot be written: {error.strerror or error}; free space, and go on with "
            "--resume: the checkpoints so far, and what they vouch for, are whole"
        ) from error
    save_checkpoint(run.run_dir, position.step, state)
    let_go(run)


def let_go(run: Run) -> None:
    """Delete the checkpoints that need not stay; at a resume too, for a kill may have come before it was done."""
    for line in apply_retention(run.run_dir, run.checkpoints, protected=_protected(run)).warnings:
        run.sinks.event(Event(run.position.step, "save", "retention", line, interrupts=True))


def _protected(run: Run) -> set[int]:
    """The best one, the last healthy one, and the one that a rollback would go to."""
    best, since = run.position.best_step, run.monitor.trouble_since
    protected = {best} if best is not None and run.checkpoints.keep_best else set()
    quarantine = run.monitor.config.policy.quarantine_steps
    for health in (last_healthy(run.run_dir), next(before_trouble(run.run_dir, since, quarantine), None)):
        if health is not None:
            protected.add(health.step)
    return protected
