"""Fails each file-system call of a run, one at a time and with each error, and looks at what is left."""

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.atomic import is_temporary
from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_checkpoint, load_newest
from minigpt.errors import MiniGPTError
from minigpt.lab.torture_disk.faulty_disk import REFUSALS, FaultyDisk, installed
from minigpt.lab.torture_disk.scenes import SCENES, STEPS, Scene, Workplace

COMPARED = ("model_state_dict", "optimizer_state_dicts", "rng", "position")
RECORDS = ("metrics.jsonl", "events.jsonl", "monitor_logs", "training.log")
"""What the sinks write: their faults are theirs to answer for, but they must lose no checkpoint."""


@dataclass(frozen=True)
class Case:
    """One fault."""

    scene: str
    error: int
    call: int
    """Index of the call that fails, among those that this error fits."""
    forever: bool
    policy: str
    """Of checkpoint.on_write_error."""

    @property
    def name(self) -> str:
        return f"{errno.errorcode[self.error]} {'from call' if self.forever else 'at call'} {self.call}"


@dataclass
class Verdict:
    """What became of a run that met a fault."""

    case: Case
    call: str
    """The kind of call and the file."""
    ended: str
    """"finished", "refused", or what should not have been."""
    lost: list[str] = field(default_factory=list)
    """What is wrong, one line each; [] when nothing is."""


def cases(
    scene: Scene, *, errors: Iterable[int] = REFUSALS, every: int = 1, first: int = 0
) -> Iterator[Case]:
    """All cases of a scene, or each `every`-th from the `first` on: each call, with each error that fits it."""
    with _stage(scene) as stage:
        found = [
            Case(scene.name, error, call, forever, policy)
            for error in errors
            for calls in [stage.count_calls(error)]
            for policy in ("stop", "go_on")
            for forever in (False, True)
            for call in range(calls)
        ]
    yield from found[first::every]


def try_cases(chosen: Sequence[Case]) -> Iterator[Verdict]:
    """What becomes of each; all of them of one scene."""
    (name,) = {case.scene for case in chosen}
    with _stage(next(scene for scene in SCENES if scene.name == name)) as stage:
        straight = stage.straight_state()
        for case in chosen:
            yield stage.verdict(case, straight)


class _Stage:
    """A scene that can be played again and again, each time from the same beginning."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene, self._pristine, self.place = scene, folder / "pristine", Workplace(folder / "work")
        self.place.set_up()
        os.chdir(self.place.folder)  # logs/ lands here
        with _silence():
            scene.before(self.place)
        os.chdir(folder)
        self.place.folder.rename(self._pristine)

    def reset(self) -> None:
        os.chdir(self._pristine.parent)
        shutil.rmtree(self.place.folder, ignore_errors=True)
        shutil.copytree(self._pristine, self.place.folder, symlinks=True)
        os.chdir(self.place.folder)

    def count_calls(self, error: int) -> int:
        """How many calls of an undisturbed run `error` fits."""
        self.reset()
        disk = FaultyDisk(self.place.disk, error)
        with _silence(), installed(disk):
            self._scene.act(self.place, "checkpoint.on_write_error=stop")
        return len(disk.calls)

    def straight_state(self) -> dict[str, Any]:
        """The final state of a run that met no fault."""
        self.reset()
        with _silence():
            self.place.train()
        return load_newest(self.place.run_dir).state

    def verdict(self, case: Case, straight: dict[str, Any]) -> Verdict:
        """One run that meets the fault, and the same again without it."""
        self.reset()
        place, before = self.place, list[Path]()
        disk = FaultyDisk(place.disk, case.error, case.call, case.forever)
        disk.on_refusal = lambda: before.extend(_checkpoints(place.disk))
        with _silence():
            with installed(disk):
                ended, lost = _ended(self._scene, case, place)
            call = " ".join(disk.calls[case.call]) if case.call < len(disk.calls) else "not reached"
            steps = [_loadable_step(path, lost) for path in _checkpoints(place.disk)]
            newest = max(map(_step_of, before), default=-1)
            if max(steps, default=-1) < newest:
                lost.append(f"the newest checkpoint was of step {newest}, now there are {steps}")
            if ended == "finished":
                _compare(place, straight, lost)
            _go_on_without_faults(place, straight, lost)
        return Verdict(case, call, ended, lost)


def _ended(scene: Scene, case: Case, place: Workplace) -> tuple[str, list[str]]:
    try:
        code = scene.act(place, f"checkpoint.on_write_error={case.policy}")
    except MiniGPTError as error:
        lines = str(error).count("\n") + 1
        return "refused", [] if lines == 1 else [f"the refusal is {lines} lines"]
    except OSError as error:
        of_records = any(name in str(error.filename or error) for name in RECORDS)
        # The command line makes a line of it, which cannot say what to do.
        return "refused", [] if of_records else [f"a bare OSError: {error}"]
    except Exception as error:
        return "traceback", [f"{type(error).__name__}: {error}"]
    return ("finished", []) if code == 0 else (f"exit {code}", [f"exit code {code}"])


def _go_on_without_faults(place: Workplace, straight: dict[str, Any], lost: list[str]) -> None:
    """The next start, on a disk that works: it ends where an undisturbed run ends, and nothing half is left."""
    resume = "auto" if checkpoints_by_step(place.run_dir) else None
    try:
        code = place.train(resume=resume)
    except Exception as error:
        lost.append(f"the next start fails: {type(error).__name__}: {error}")
        return
    if code != 0:
        lost.append(f"the next start exits with {code}")
    _compare(place, straight, lost)
    left = [str(path.relative_to(place.disk)) for path in place.disk.rglob(".*") if is_temporary(path.name)]
    if left:
        lost.append(f"half files stay: {left}")


def _compare(place: Workplace, straight: dict[str, Any], lost: list[str]) -> None:
    newest = load_newest(place.run_dir)
    if newest.state["step"] != STEPS or newest.damaged:
        lost.append(f"ends with {newest.path.name}, damaged: {newest.damaged}")
    for key in COMPARED:
        if not same(newest.state[key], straight[key]):
            lost.append(f"{key} is not that of an undisturbed run")
    text = (place.run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    if steps != list(range(1, STEPS + 1)):
        lost.append(f"metrics.jsonl has the steps {steps}")


def same(first: Any, second: Any) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def _checkpoints(disk: Path) -> list[Path]:
    return sorted(disk.rglob("checkpoint_step_*.pt"))


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _loadable_step(path: Path, lost: list[str]) -> int:
    try:
        return int(load_checkpoint(path)["step"])
    except MiniGPTError as error:
        lost.append(f"half a checkpoint: {error}")
        return -1


@contextlib.contextmanager
def _stage(scene: Scene) -> Iterator[_Stage]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="torture_disk_") as folder:
        try:
            yield _Stage(scene, Path(folder).resolve())
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
