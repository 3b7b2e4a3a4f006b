"""When a run saves itself, what must be on disk before a checkpoint may say so, and what if the disk refuses."""

import time
from typing import Any

from minigpt.atomic import sweep_leftovers
from minigpt.checkpoint.files import checkpoint_path, checkpoints_by_step, steps_to_delete
from minigpt.checkpoint.health import before_trouble, last_healthy
from minigpt.checkpoint.save import apply_retention, save_checkpoint
from minigpt.errors import CheckpointError, NotWrittenError
from minigpt.training.folder import describe_run, resume_command
from minigpt.training.records import flush_records
from minigpt.training.refusals import FULL, error_number, newest_whole, out_of_reach, space_text, way_out
from minigpt.training.run import Run
from minigpt.training.state import run_state
from minigpt.training_monitor.event import Event

State = dict[str, Any]


class FolderLostError(NotWrittenError):
    """The run folder is not where it was."""

    def __init__(self, message: str, reason: str, *, is_deleted: bool) -> None:
        super().__init__(message, reason)
        self.is_deleted = is_deleted


class SaveClock:
    """Tells when `checkpoint.every_minutes` have passed since the last save."""

    def __init__(self, every_minutes: float | None) -> None:
        self._every_seconds = None if every_minutes is None else 60 * every_minutes
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        return self._every_seconds is not None and time.monotonic() - self._saved_at >= self._every_seconds

    def reset(self) -> None:
        self._saved_at = time.monotonic()


def save(run: Run, reason: str, *, ends: bool = False) -> bool:
    """Write the checkpoint of the run's present step, then let go of those that need not stay.

    Whether it is written, the same on every rank; if not, `run.refusals` knows why. `ends`: the run ends here anyway,
    so that there is nothing to be stopped. The sinks reach the disk first: a checkpoint of step N vouches for N steps
    in metrics.jsonl and TensorBoard.

    Raises:
        CheckpointError: the disk refuses, and the run is to stop then (`checkpoint.on_write_error`).
    """
    state = run_state(run)
    goes_on = ends or run.checkpoints.on_write_error == "go_on"
    # The others wait, and learn of it if the disk refuses.
    return bool(run.world.from_main(run.world.on_main(lambda: _tried(run, state, reason, goes_on=goes_on))))


def save_first(run: Run) -> None:
    """Write the first checkpoint of a run: with nothing on disk yet, no disk that refuses is gone past.

    Raises:
        CheckpointError: the disk refuses.
    """
    state = run_state(run)
    run.world.on_main(lambda: _tried(run, state, "the beginning", goes_on=False))


def retry_is_due(run: Run) -> bool:
    """Whether to try again now what the disk has refused."""
    unsaved = run.refusals.unsaved
    return unsaved is not None and unsaved.is_due(run.position.step)


def _tried(run: Run, state: State | None, reason: str, *, goes_on: bool) -> bool:
    assert state is not None, "only the main rank has it"
    step, refusals = run.position.step, run.refusals
    try:
        _write(run, state, reason)
    except NotWrittenError as error:
        line = _refused_line(run, error, goes_on=goes_on)
        if not goes_on:
            raise CheckpointError(line) from error
        if refusals.note(step, error):
            _tell(run, "checkpoint_refused", line)
        return False
    if run.position.best_step == step:
        refusals.best_saved = step
    if refusals.unsaved is not None:
        since, tries, refusals.unsaved = refusals.unsaved.step, refusals.unsaved.tries, None
        text = f"{checkpoint_path(run.run_dir, step)} is written: the disk takes checkpoints again"
        _tell(run, "checkpoint_written", f"{text} (refused since step {since}, {tries} times)")
    let_go(run)
    return True


def _write(run: Run, state: State, reason: str) -> None:
    """Raises NotWrittenError, whatever it is that the disk refuses."""
    path = checkpoint_path(run.run_dir, run.position.step)
    try:
        _find_folder(run)
        sweep_leftovers(run.run_dir, alone=True)
        is_retry = run.refusals.unsaved is not None
        # Of a step whose checkpoint is not written the records say nothing, but for the first that was refused.
        if not is_retry:
            run.sinks.event(_save_event(run, state, reason))
        state |= flush_records(run)
        _write_with_room(run, state)
        if is_retry:
            run.sinks.event(_save_event(run, state, reason))
    except NotWrittenError:
        raise
    except (OSError, CheckpointError) as error:
        found = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        at = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise NotWrittenError(f"cannot write {path}: {at}{found}", at + found) from error


def _save_event(run: Run, state: State, reason: str) -> Event:
    step = run.position.step
    text = f"checkpoint_step_{step}.pt: {reason}"
    mark = {name: state[name] for name in ("healthy", "open_findings")}
    if not state["healthy"]:
        found = ", ".join(f"{name} {status}" for name, status in state["open_findings"].items())
        text += f" (marked as not healthy: {found})"
    return Event(step, "save", "checkpoint", text, data=mark)


def _find_folder(run: Run) -> None:
    """Nothing, where the run folder is the one that the run began in.

    One that was deleted is made again where the run is to go on: what it held is gone either way. One that is only out
    of reach is waited for.
    """
    lost = None if run.held is None else run.held.lost()
    if run.held is None or lost is None:
        return
    problem = f"the run folder {run.run_dir} {lost.text}"
    if not lost.is_deleted or run.checkpoints.on_write_error == "stop":
        raise FolderLostError(problem, problem, is_deleted=lost.is_deleted)
    run.held.take_anew()
    # The records come back by themselves, from the files that are still open.
    describe_run(run)
    _tell(
        run, "folder_lost", f"⚠️ {problem} with all that it held; it is made anew, for what comes from here on"
    )


def _write_with_room(run: Run, state: State) -> None:
    """Where the disk is full and the run is to go on, checkpoints that need not stay make room for the new one."""
    try:
        save_checkpoint(run.run_dir, run.position.step, state)
    except NotWrittenError as error:
        is_full = error_number(error) in (*FULL, None)
        if run.checkpoints.on_write_error == "stop" or not is_full or not _make_room(run):
            raise
        save_checkpoint(run.run_dir, run.position.step, state)


def _make_room(run: Run) -> bool:
    """Delete now what retention would delete after the save, but for the newest whole one; whether there was any."""
    paths = checkpoints_by_step(run.run_dir)
    sure = newest_whole(run.run_dir)
    steps = steps_to_delete({*paths, run.position.step}, run.checkpoints, _protected(run))
    doomed = [paths[step] for step in steps if step in paths and paths[step] != sure]
    if sure is None or not doomed:
        return False
    for path in doomed:
        path.unlink(missing_ok=True)
    return True


def let_go(run: Run) -> None:
    """Delete the checkpoints that need not stay; at a resume too, for a kill may have come before it was done.

    Where that is refused, or would not be safe, training goes on, and it is said once.
    """
    refusals, problem, damaged = run.refusals, out_of_reach(run.run_dir), []
    if problem is None:
        retention = apply_retention(run.run_dir, run.checkpoints, protected=_protected(run))
        damaged, problem = retention.damaged, retention.refused
    for line in damaged:
        if line not in refusals.damaged:
            _tell(run, "retention", f"warning: {line}")
    if problem is not None and refusals.undeleted is None:
        _tell(
            run,
            "retention",
            f"warning: checkpoints that need not stay are not deleted ({problem}); they take up space",
        )
    refusals.damaged, refusals.undeleted = frozenset(damaged), problem


def _protected(run: Run) -> set[int]:
    """The best one, the last healthy one, and the one that a rollback would go to."""
    best, since = run.position.best_step, run.monitor.trouble_since
    protected = {best} if best is not None and run.checkpoints.keep_best else set()
    if protected and best not in checkpoints_by_step(run.run_dir) and run.refusals.best_saved is not None:
        protected.add(run.refusals.best_saved)
    quarantine = run.monitor.config.policy.quarantine_steps
    for health in (last_healthy(run.run_dir), next(before_trouble(run.run_dir, since, quarantine), None)):
        if health is not None:
            protected.add(health.step)
    return protected


def _refused_line(run: Run, error: NotWrittenError, *, goes_on: bool) -> str:
    """What was refused, with what room, what is safe, and the way out."""
    path = checkpoint_path(run.run_dir, run.position.step)
    if isinstance(error, FolderLostError):
        way = "put a copy of it back" if error.is_deleted else "put it back"
        way = f"training goes on and tries again; {way}" if goes_on else f"{way}, then go on with --resume"
        return f"{'⚠️ ' if goes_on else ''}cannot write {path}: {error.reason}; {way}"
    what = f"cannot write {path}: {error.reason}{space_text(run.run_dir)}"
    whole = newest_whole(run.run_dir)
    safe = "there is no whole checkpoint" if whole is None else f"the newest whole checkpoint is {whole}"
    if goes_on:
        return f"⚠️ {what}; {safe}; training goes on and tries again; {way_out(error)}"
    then = "start again" if whole is None else f"go on with: {resume_command(run.run_dir)}"
    return f"{what}; {safe}; {way_out(error)}, then {then}"


def _tell(run: Run, name: str, text: str) -> None:
    run.sinks.event(Event(run.position.step, "note", name, text, interrupts=True))
