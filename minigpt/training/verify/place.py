"""A run's folder, a single checkpoint or a prepared corpus: everything in it checked, nothing changed."""

import os
import shlex
from pathlib import Path

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import is_run_folder, newest_good
from minigpt.data.manifest import MANIFEST_NAME
from minigpt.errors import CheckpointError
from minigpt.training.bundle import bundles_of
from minigpt.training.folder import (
    CONFIG_NAME,
    CRASH_PREFIX,
    EVENTS_NAME,
    METRICS_NAME,
    NEWER_PREFIX,
    TENSORBOARD_NAME,
    resume_command,
)
from minigpt.training.verify.belongings import edits_told, misfits_told, read_belongings
from minigpt.training.verify.checkpoints import Vouched, check_bundle, check_checkpoint
from minigpt.training.verify.corpus import check_corpus
from minigpt.training.verify.curves import check_curves
from minigpt.training.verify.records import check_events, check_metrics
from minigpt.training.verify.report import Checked, Report

ATTEMPTS = 3
"""A run that trains meanwhile may change files between two looks at them; what is damaged stays so."""


def verify(place: Path) -> Report:
    """What is wrong with what a run wrote; reads all of it, and writes nothing.

    Raises:
        CheckpointError: there is nothing of the kind at `place`.
    """
    if not os.path.lexists(place):
        raise CheckpointError(
            f"{place} is not there; give a run's folder, a checkpoint, or a prepared corpus"
        )
    if not is_run_folder(place):
        return _verify_file(place)
    if (place / MANIFEST_NAME).exists():
        files = check_corpus(place)
        sound = all(checked.status == "good" for checked in files)
        return Report(place, tuple(files), "runs can train on it" if sound else "it can be prepared anew")
    if not (checkpoints_by_step(place) or (place / CONFIG_NAME).exists() or bundles_of(place)):
        raise CheckpointError(
            f"{place} holds neither checkpoints nor a {MANIFEST_NAME}; give a run's folder, such as "
            "checkpoints/pretrain_small, a checkpoint, or a prepared corpus"
        )
    for _ in range(ATTEMPTS):
        before = _state_of(place)
        files, newest = _verify_run(place)
        if before == _state_of(place) or all(checked.status != "damaged" for checked in files):
            break
    if newest is not None and newest.corpus_folder is not None:
        files += _corpus_of_run(newest.corpus_folder)
    taken, passed_over = newest_good(place)
    whole_config = not any(each.file == CONFIG_NAME and each.status == "damaged" for each in files)
    return Report(place, tuple(files), _advice(place, taken, passed_over, whole_config), taken)


def _verify_file(path: Path) -> Report:
    if path.name.startswith(CRASH_PREFIX):
        checked = check_bundle(path)
        advice = "minigpt replay does its step again" if checked.status == "good" else "nothing else needs it"
        return Report(path, (checked,), advice)
    beside = read_belongings(path.parent)
    checked, found = check_checkpoint(path, beside.config, beside.tokenizer_id)
    files, vouched = misfits_told([*beside.files, checked], [found] if found is not None else [])
    files = [each for each in files if each.file == path.name or each.status == "damaged"]
    if not vouched:
        return Report(path, tuple(files), "minigpt verify of its folder says which other one is good")
    return Report(path, tuple(files), f"to go on from it: {resume_command(path)}", path)


def _verify_run(run_dir: Path) -> tuple[list[Checked], Vouched | None]:
    """All of the folder's files, and the newest checkpoint that is good."""
    beside = read_belongings(run_dir, required=True)
    files, vouched = list(beside.files), []
    for path in checkpoints_by_step(run_dir).values():
        checked, found = check_checkpoint(path, beside.config, beside.tokenizer_id)
        if os.path.lexists(path):  # else a run that trains meanwhile has let go of it
            files.append(checked)
            vouched += [found] if found is not None else []
    files, vouched = misfits_told(files, vouched)
    newest = max(vouched, key=lambda each: each.step, default=None)
    files = edits_told(files, beside.config, newest)
    # The newest checkpoint was read before the records: those reach at least as far.
    events, begun_at = check_events(run_dir / EVENTS_NAME, vouched)
    files += [check_metrics(run_dir / METRICS_NAME, vouched, begun_at), events]
    files += check_curves(run_dir / TENSORBOARD_NAME, run_dir, None if newest is None else newest.step)
    files += [check_bundle(path) for path in bundles_of(run_dir)]
    return files + _left_over(run_dir), newest


def _left_over(run_dir: Path) -> list[Checked]:
    """What no resume reads."""
    found = []
    for path in sorted(run_dir.iterdir()):
        if path.name.startswith(".") and ".tmp" in path.name:
            text = "a file that is being written, or that a killed process left: the next save removes it"
            found.append(Checked(path.name, "note", text))
        elif path.name.startswith(NEWER_PREFIX):
            found.append(Checked(path.name, "note", "set aside by a resume or rollback; nothing reads it"))
    return found


def _corpus_of_run(folder: Path) -> list[Checked]:
    if not folder.is_dir():
        return [Checked(str(folder), "note", "the prepared corpus is gone: --resume prepares it anew")]
    return [Checked(str(folder / each.file), each.status, each.text) for each in check_corpus(folder)]


def _advice(run_dir: Path, taken: Path | None, passed_over: list[str], whole_config: bool) -> str:
    if taken is None:
        return "there is no good checkpoint to resume from" if passed_over else "there is no checkpoint yet"
    command = resume_command(run_dir)
    if not whole_config:
        command = f"python -m minigpt train --config NAME --run-dir {shlex.quote(str(run_dir))} --resume"
    told = f"--resume takes {taken.name}: {command}"
    return f"{told} (the damaged newer ones are moved aside)" if passed_over else told


def _state_of(run_dir: Path) -> list[tuple[str, int, int]]:
    """Changes when a file of the run does."""
    found = []
    for path in [*run_dir.iterdir(), *(run_dir / TENSORBOARD_NAME).glob("*")]:
        try:
            status = path.lstat()
        except OSError:  # gone since it was listed
            continue
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return sorted(found)
