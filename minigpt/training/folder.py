"""A run's folder: where it is, what an earlier run left in it, and what is written there once."""

import shutil
import time
from pathlib import Path

from minigpt.atomic import write_text_atomically
from minigpt.checkpoint.files import checkpoint_step, checkpoints_by_step
from minigpt.config.dump import to_yaml
from minigpt.config.run_config import RunConfig
from minigpt.data.tokenizer import Tokenizer

CONFIG_NAME, TOKENIZER_NAME = "config.yaml", "tokenizer.json"
METRICS_NAME, EVENTS_NAME, TENSORBOARD_NAME = "metrics.jsonl", "events.jsonl", "monitor_logs"
AFTER_STEP = "after_step_"


def default_run_dir(mode: str, name: str) -> Path:
    """`checkpoints/<mode>_<preset>`, from the current folder."""
    return Path("checkpoints") / f"{mode}_{name}"


def set_aside(run_dir: Path) -> Path | None:
    """Move what an earlier run left in `run_dir` into a sibling named after the time of its last change.

    None if there was nothing: starting anew never deletes or overwrites a checkpoint. Files that no run wrote stay:
    somebody may train in the folder of a project.
    """
    contents = [path for path in run_dir.iterdir() if _is_of_a_run(path)]
    if not contents:
        return None
    changed_at = max(path.stat().st_mtime for path in contents)
    stem = f"{run_dir.name}_{time.strftime('%Y-%m-%d_%H%M%S', time.localtime(changed_at))}"
    target, count = run_dir.with_name(stem), 1
    while target.exists():
        count += 1
        target = run_dir.with_name(f"{stem}_{count}")
    target.mkdir()
    for path in contents:
        path.rename(target / path.name)
    return target


def _is_of_a_run(path: Path) -> bool:
    names = (CONFIG_NAME, TOKENIZER_NAME, METRICS_NAME, EVENTS_NAME, TENSORBOARD_NAME)
    return path.name in names or checkpoint_step(path) is not None or path.name.startswith(AFTER_STEP)


def set_newer_aside(run_dir: Path, step: int) -> Path | None:
    """Before going on from `step`: move later checkpoints, and copies of the records, into a folder of their own."""
    newer = [path for found, path in checkpoints_by_step(run_dir).items() if found > step]
    if not newer:
        return None
    target = run_dir / f"{AFTER_STEP}{step}_until_{time.strftime('%Y-%m-%d_%H%M%S')}"
    target.mkdir()
    for name in (METRICS_NAME, EVENTS_NAME):
        if (run_dir / name).exists():
            shutil.copy2(run_dir / name, target / name)
    for path in newer:
        path.rename(target / path.name)
    return target


def describe_run(run_dir: Path, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Write config.yaml and tokenizer.json: what the run is, enough to resume or export it on another machine."""
    write_text_atomically(run_dir / CONFIG_NAME, to_yaml(config))
    tokenizer.save(run_dir / TOKENIZER_NAME)
