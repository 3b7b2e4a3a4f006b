"""A run's folder: where it is, what an earlier run left in it, and what is written there once."""

import contextlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from minigpt.atomic import sync, write_text_atomically
from minigpt.checkpoint.files import checkpoint_step, checkpoints_by_step
from minigpt.checkpoint.lock import LOCK_NAMES
from minigpt.config.dump import to_yaml
from minigpt.config.run_config import RunConfig
from minigpt.errors import CheckpointError, MiniGPTError
from minigpt.training.run import Run

CONFIG_NAME, TOKENIZER_NAME, ENVIRONMENT_NAME = "config.yaml", "tokenizer.json", "environment.json"
METRICS_NAME, EVENTS_NAME, TENSORBOARD_NAME = "metrics.jsonl", "events.jsonl", "monitor_logs"
WANDB_NAME = "wandb"  # so called by W&B itself
NEWER_PREFIX = "after_step_"
CRASH_PREFIX = "crash_step_"
_MOST_FOLDERS = 200
HALF_WAY = ".moving_aside"
"""In a run's folder: an earlier run on its way out of it."""
_MOVE_SECONDS = 10.0


def default_run_dir(mode: str, name: str) -> Path:
    """`checkpoints/<mode>_<preset>`, from the current folder."""
    return Path("checkpoints") / f"{mode}_{name}"


def resume_command(place: Path) -> str:
    """What to type to go on with a run, whatever it was started with: its folder knows the configuration."""
    return f"python -m minigpt train --resume {shlex.quote(str(place))}"


def check_name(run_dir: Path) -> None:
    """Nothing, when records can hold the folder's name, and it can be made.

    Raises:
        CheckpointError: it is not UTF-8, or nested beyond use.
    """
    try:
        str(run_dir.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise CheckpointError(
            f"the run folder {run_dir} has a name that is not UTF-8; choose another with --run-dir"
        ) from None
    if len(run_dir.parts) > _MOST_FOLDERS:
        raise CheckpointError(
            f"the run folder {run_dir} lies {len(run_dir.parts)} folders deep; choose another with --run-dir"
        )


def refuse_foreign(run_dir: Path) -> None:
    """Nothing, when all that `run_dir` holds was written by a run (or is hidden).

    A folder that is about to be cleared for a new run: `--run-dir .` must not carry somebody's project away.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        foreign = sorted(
            path.name for path in run_dir.iterdir() if not (_is_hidden(path) or _is_of_a_run(path))
        )
    except (FileNotFoundError, NotADirectoryError):  # the lock says so better
        return
    except OSError as error:
        raise CheckpointError(
            f"cannot read the run folder {run_dir}: {error.strerror}; choose another"
        ) from error
    if foreign:
        raise CheckpointError(
            f"the run folder {run_dir} holds what no run has written ({', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}); move it, or choose another folder with --run-dir"
        )


def set_aside(run_dir: Path) -> Path | None:
    """Move what an earlier run left in `run_dir` into a sibling named after the time of its last change.

    None if there was nothing: starting anew never deletes or overwrites a checkpoint. A kill on the way leaves all of
    it in `run_dir`, for `put_back`.

    Raises:
        CheckpointError: it cannot be moved; all is where it was.
    """
    put_back(run_dir)
    contents = [path for path in run_dir.iterdir() if not _is_hidden(path)]
    if not contents:
        return None
    changed_at = max(path.stat().st_mtime for path in contents)
    # A link is followed: the earlier run stays on its disk.
    place = run_dir.resolve()
    stem = f"{place.name}_{time.strftime('%Y-%m-%d_%H%M%S', time.localtime(changed_at))}"
    target, count = place.with_name(stem), 1
    while target.exists():
        count += 1
        target = place.with_name(f"{stem}_{count}")
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


def _move_contents(source: Path, target: Path) -> None:
    """Move all but hidden files from one folder to another."""
    for path in [path for path in source.iterdir() if not _is_hidden(path)]:
        path.rename(target / path.name)
    for folder in (target, source):
        sync(folder)


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


@contextmanager
def writing_to(run_dir: Path, safe: str = "nothing was lost") -> Iterator[None]:
    """Turns what the disk refuses inside into one clear line; `safe` says in it what is as it was.

    Raises:
        CheckpointError: instead of an OSError (but for a broken pipe, which is no disk).
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else run_dir
        raise CheckpointError(
            f"the run folder {run_dir} cannot be used: {place}: {error.strerror or error}; {safe}; "
            "mend that, or choose another folder with --run-dir"
        ) from error


def _empty(run_dir: Path) -> None:
    for path in [path for path in run_dir.iterdir() if not _is_hidden(path)]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _first_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, MiniGPTError | OSError) else ""
    return (text.splitlines() or [type(error).__name__])[0]


def check_log_file(path: Path) -> None:
    """Nothing, when lines can be appended to `path`; it is made if it is not there.

    Raises:
        CheckpointError: they cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path} (from {Path.cwd()}): {error.filename}: {error.strerror}; "
            "move it out of the way, or start in a folder of your own"
        ) from error


def set_newer_aside(run_dir: Path, step: int, *, records: bool = False) -> Path | None:
    """Before going on from `step`: move later checkpoints, and copies of the records, into a folder of their own.

    None where there are no later checkpoints; with `records`, their copies are worth a folder all the same.
    """
    newer = [path for found, path in checkpoints_by_step(run_dir).items() if found > step]
    if not newer and not records:
        return None
    stem = f"{NEWER_PREFIX}{step}_until_{time.strftime('%Y-%m-%d_%H%M%S')}"
    target, count = run_dir / stem, 1
    while target.exists():
        count += 1
        target = run_dir / f"{stem}_{count}"
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


def describe_run(run: Run) -> None:
    """Write config.yaml and tokenizer.json: what the run is, enough to resume or export it on another machine.

    And environment.json: what else its last bits depend on, for whoever is to get the same.
    """
    run_dir = run.run_dir
    # The folder's own name, or a power failure could take it away with all that is in it.
    for folder in (run_dir.resolve().parent, run_dir.resolve().parent.parent):
        with contextlib.suppress(OSError):
            sync(folder)
    write_text_atomically(run_dir / CONFIG_NAME, to_yaml(RunConfig.model_validate(run.identity["config"])))
    run.tokenizer.save(run_dir / TOKENIZER_NAME)
    # What auto has chosen rounds differently when it is chosen anew, on a fuller machine or another one.
    chosen = {
        "micro_batch_size": str(run.micro_batch_size),
        "precision": run.precision.name,
        "ranks": str(run.world.size),
    }
    environment = json.dumps(run.identity["environment"] | chosen, indent=2)
    write_text_atomically(run_dir / ENVIRONMENT_NAME, environment + "\n")


def _is_hidden(path: Path) -> bool:
    """The lock, temporary files, and what is none of our business."""
    return path.name.startswith(".")


def _is_of_a_run(path: Path) -> bool:
    names = (
        CONFIG_NAME,
        TOKENIZER_NAME,
        ENVIRONMENT_NAME,
        METRICS_NAME,
        EVENTS_NAME,
        TENSORBOARD_NAME,
        WANDB_NAME,
    )
    return (
        path.name in names
        or checkpoint_step(path) is not None
        or path.name.startswith((NEWER_PREFIX, CRASH_PREFIX))
    )


def _as_typed(path: Path) -> Path:
    """From the current folder where that is shorter to read and to type."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
