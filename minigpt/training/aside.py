"""What stands in the way of a run is moved aside: whole, or as it was, whatever ends the move."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from minigpt.atomic import sync
from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.lock import LOCK_NAMES
from minigpt.errors import CheckpointError, MiniGPTError
from minigpt.training.folder import EVENTS_NAME, METRICS_NAME, NEWER_PREFIX, is_hidden

HALF_WAY = ".moving_aside"
"""In a run's folder: an earlier run on its way out of it."""
_MOVE_SECONDS = 10.0


def set_aside(run_dir: Path) -> Path | None:
    """Move what an earlier run left in `run_dir` into a sibling named after the time of its last change.

    None if there was nothing: starting anew never deletes or overwrites a checkpoint. A kill on the way leaves all of
    it in `run_dir`, for `put_back`.

    Raises:
        CheckpointError: it cannot be moved; all is where it was.
    """
    put_back(run_dir)
    contents = [path for path in run_dir.iterdir() if not is_hidden(path)]
    if not contents:
        return None
    changed_at = max(path.stat().st_mtime for path in contents)
    # A link is followed: the earlier run stays on its disk.
    place = run_dir.resolve()
    stem = f"{place.name}_{time.strftime('%Y-%m-%d_%H%M%S', time.localtime(changed_at))}"
    target = _unused(place.with_name(stem))
    half_way = run_dir / HALF_WAY
    try:
        half_way.mkdir()
        sync(run_dir)
        _move_contents(run_dir, half_way)
        # The one rename that counts: nobody ever finds half of a run in either place.
        half_way.rename(target)
        sync(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            if target.exists():
                target.rename(half_way)
            put_back(run_dir)
        raise CheckpointError(
            f"the earlier run in {run_dir} cannot be moved aside to {target}: {error.strerror}; "
            "choose another folder with --run-dir"
        ) from error
    return _as_typed(target)


def made_whole(run_dir: Path) -> Path:
    """`run_dir`, with what a killed move had taken out of it back in its place, unless somebody works there."""
    if (run_dir / HALF_WAY).is_dir():
        # The ranks of a run come here all at once: one does it, the others wait.
        # Where the disk refuses it, or knows no locks, what needs the whole folder will say so.
        refused = (Timeout, OSError, NotImplementedError)
        with contextlib.suppress(*refused), FileLock(run_dir / LOCK_NAMES[0], timeout=_MOVE_SECONDS):
            put_back(run_dir)
    return run_dir


def put_back(run_dir: Path) -> None:
    """Undo a move that a kill ended half-way; nothing, where there is none. The folder's lock must be held."""
    half_way = run_dir / HALF_WAY
    if half_way.is_dir():
        _move_contents(half_way, run_dir)
        half_way.rmdir()


@contextmanager
def whole_or_nothing(run_dir: Path, aside: Path | None) -> Iterator[None]:
    """If the block fails before the first checkpoint is there, all is as it was.

    What it put into `run_dir` is removed, and the earlier run that was moved `aside` is back.
    """
    try:
        yield
    except BaseException as error:
        try:
            if not checkpoints_by_step(run_dir):
                _empty(run_dir)
                if aside is not None:
                    aside.rename(run_dir / HALF_WAY)
                    put_back(run_dir)
        except OSError as left:
            where = "" if aside is None else f"; the earlier run is in {aside}"
            raise CheckpointError(
                f"{_first_line(error)}; and what had been begun in {run_dir} cannot be removed: {left.strerror}{where}"
            ) from error
        raise


def set_newer_aside(run_dir: Path, step: int, *, records: bool = False) -> Path | None:
    """Before going on from `step`: move later checkpoints, and copies of the records, into a folder of their own.

    None where there are no later checkpoints; with `records`, their copies are worth a folder all the same.
    """
    newer = [path for found, path in checkpoints_by_step(run_dir).items() if found > step]
    if not newer and not records:
        return None
    stem = f"{NEWER_PREFIX}{step}_until_{time.strftime('%Y-%m-%d_%H%M%S')}"
    target = _unused(run_dir / stem)
    target.mkdir()
    moved: list[Path] = []
    try:
        for name in (METRICS_NAME, EVENTS_NAME):
            if (run_dir / name).exists():
                shutil.copy2(run_dir / name, target / name)
                sync(target / name)
        # Also through a power failure: the new folder is there before anything moves into it, and what has moved stays
        # moved once the records are cut back.
        for folder in (target, run_dir):
            sync(folder)
        # The newest first: a kill on the way leaves a run that stands earlier, never one with a hole.
        for path in reversed(newer):
            moved.append(path.rename(target / path.name))
        for folder in (target, run_dir):
            sync(folder)
    except OSError:
        with contextlib.suppress(OSError):
            for path in moved:
                path.rename(run_dir / path.name)
            shutil.rmtree(target)
        raise
    return target


def _move_contents(source: Path, target: Path) -> None:
    """Move all but hidden files from one folder to another."""
    for path in [path for path in source.iterdir() if not is_hidden(path)]:
        path.rename(target / path.name)
    for folder in (target, source):
        sync(folder)


def _empty(run_dir: Path) -> None:
    for path in [path for path in run_dir.iterdir() if not is_hidden(path)]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _first_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, MiniGPTError | OSError) else ""
    return (text.splitlines() or [type(error).__name__])[0]


def _as_typed(path: Path) -> Path:
    """From the current folder where that is shorter to read and to type."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _unused(wanted: Path) -> Path:
    """`wanted`, or the same with a number where that is taken."""
    target, count = wanted, 1
    while target.exists():
        count += 1
        target = wanted.with_name(f"{wanted.name}_{count}")
    return target
