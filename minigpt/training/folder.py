"""A run's folder: where it is, what an earlier run left in it, and what is written there once."""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.atomic import sync, write_text_atomically
from minigpt.checkpoint.files import checkpoint_step
from minigpt.config.dump import to_yaml
from minigpt.config.run_config import RunConfig
from minigpt.errors import CheckpointError
from minigpt.training.run import Run

CONFIG_NAME, TOKENIZER_NAME, ENVIRONMENT_NAME = "config.yaml", "tokenizer.json", "environment.json"
METRICS_NAME, EVENTS_NAME, TENSORBOARD_NAME = "metrics.jsonl", "events.jsonl", "monitor_logs"
WANDB_NAME = "wandb"  # so called by W&B itself
NEWER_PREFIX = "after_step_"
CRASH_PREFIX = "crash_step_"
_MOST_FOLDERS = 200


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
            path.name for path in run_dir.iterdir() if not (is_hidden(path) or _is_of_a_run(path))
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


def is_hidden(path: Path) -> bool:
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
