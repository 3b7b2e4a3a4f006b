"""A configuration tried as a user tries it: `minigpt train` in this process for two steps, and one after --resume."""

import contextlib
import io
import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.cli.main import USER_ERROR, run
from minigpt.config.load import load_config
from minigpt.lab.experiments import run as experiment_run
from minigpt.lab.lr_find import sweep
from minigpt.training import pretrain
from minigpt.training.ending import STOPPED_BY_MONITOR
from minigpt.training.run import Run
from tests.fuzz.judge import MOST_CHARACTERS
from tests.training.tiny_run import before_step

STEPS = 2
INTERRUPTED = 128 + signal.SIGINT
HANGS_AFTER_SECONDS = 120
MOST_LINES = 8


class HangsError(BaseException):
    """What a user would take for a hang."""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str
    defect: str | None
    """A traceback, a warning of Python's, or that it did not end at all."""


def ended(arguments: list[str], seconds: int = HANGS_AFTER_SECONDS) -> Ended:
    """`minigpt` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    defect, code = None, -1
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        _bounded(seconds),
    ):
        warnings.simplefilter("error")
        try:
            code = run(arguments)
        except HangsError:
            defect = f"did not end within {seconds} s: {traceback.format_exc().splitlines()[-8:]}"
        except (Exception, SystemExit) as error:
            frames = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "minigpt" in frame.filename
            ]
            where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
            defect = f"traceback: {type(error).__name__}: {str(error)[:200]} ({where})"
    return Ended(code, out.getvalue(), err.getvalue(), defect)


@contextlib.contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    def give_up(number: int, frame: Any) -> None:
        raise HangsError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def stopping_after(step: int) -> Iterator[None]:
    """Ctrl-C while `step` is trained, in each run that is built meanwhile."""
    own: Callable[..., Run] = vars(pretrain)["build_run"]
    builders = (vars(pretrain), vars(sweep))

    def build(*arguments: Any, **named: Any) -> Run:
        built = own(*arguments, **named)
        before_step(built, step, lambda: setattr(built.interrupt, "signal", signal.SIGINT))
        return built

    for module in builders:
        module["build_run"] = build
    try:
        yield
    finally:
        for module in builders:
            module["build_run"] = own


@contextlib.contextmanager
def stopping_experiments() -> Iterator[None]:
    """Ctrl-C when an experiment of the lab is about to begin its dozens of trainings, which run in other processes."""
    own = vars(experiment_run)["outcomes"]

    def stop(*arguments: Any) -> Never:
        raise KeyboardInterrupt

    vars(experiment_run)["outcomes"] = stop
    try:
        yield
    finally:
        vars(experiment_run)["outcomes"] = own


def tried(
    config: Path, overrides: tuple[str, ...], run_dir: Path, *, resumed: bool
) -> tuple[str, str | None]:
    """('trained' | 'refused', what is wrong with that, or the refusal's lines when it is refused).

    Raises:
        AssertionError: it is a defect; what.
    """
    if run_dir.exists():
        shutil.rmtree(run_dir)
    sets = [word for override in overrides for word in ("--set", override)]
    with stopping_after(STEPS):
        first = ended(["train", "--config", str(config), "--run-dir", str(run_dir), *sets])
    if first.code == USER_ERROR:
        return "refused", _refusal(first)
    _check_trained(first, run_dir)
    if load_config(str(run_dir / "config.yaml")).config != load_config(str(config), overrides).config:
        raise AssertionError("config.yaml is not the configuration that was asked for")
    if resumed and first.code in (0, INTERRUPTED):
        longer = ["--set", f"training.max_steps={STEPS + 1}"] if first.code == 0 else []
        with stopping_after(STEPS + 1):
            second = ended(["train", "--resume", str(run_dir), *longer])
        _check_trained(second, run_dir)
    return "trained", None


def _refusal(done: Ended) -> str:
    lines = done.err.splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    others = [line for line in lines if not line.startswith(("error: ", "training a tokenizer", "prepared "))]
    if others:
        raise AssertionError(f"refused with more than error lines: {others[:3]}")
    if done.defect:
        raise AssertionError(done.defect)
    return "\n".join(said)


def _check_trained(done: Ended, run_dir: Path) -> None:
    if done.defect:
        raise AssertionError(done.defect)
    if done.code not in (0, STOPPED_BY_MONITOR, INTERRUPTED):
        raise AssertionError(f"exit code {done.code}: {done.err[-300:]}")
    if "Traceback" in done.err + done.out:
        raise AssertionError(f"a traceback was printed: {done.err[-300:]}")
    steps = checkpoints_by_step(run_dir)
    if done.code != STOPPED_BY_MONITOR and max(steps, default=0) < min(STEPS, 1):
        raise AssertionError(f"exit code {done.code} with the checkpoints {list(steps)}")


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """With `folder` as the current one: names without a folder in a configuration are written there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


EXIT_CODES = (0, 1, 2, 3, 4, INTERRUPTED)


def judged_line(line: list[str], seconds: int = HANGS_AFTER_SECONDS) -> str | None:
    """What is wrong with how a command line ended: a documented code, and for 2 error lines alone, else nothing."""
    done = ended(line, seconds)
    errors = [text for text in done.err.splitlines() if text.startswith("error: ")]
    if done.defect:
        return done.defect
    if done.code not in EXIT_CODES:
        return f"exit code {done.code}"
    if "Traceback" in done.err + done.out:
        return f"a traceback was printed: {done.err[-300:]}"
    if (done.code == USER_ERROR) != bool(errors):
        return f"exit code {done.code} with {len(errors)} error lines"
    if len(errors) > MOST_LINES or any(len(text) > MOST_CHARACTERS for text in errors):
        return f"{len(errors)} error lines of up to {max(map(len, errors))} characters"
    return None
