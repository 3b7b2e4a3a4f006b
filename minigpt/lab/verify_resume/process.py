"""Legs as processes: started, watched, and gone when this process goes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from minigpt.errors import MiniGPTError
from minigpt.lab.verify_resume.leg import USER_ERROR, Leg
from minigpt.training.ending import STOPPED_BY_MONITOR
from minigpt.training.folder import METRICS_NAME
from minigpt.training.interrupt import Interrupt, Interrupted

COMMAND = (sys.executable, "-m", "minigpt.lab.verify_resume.leg")
_POLL_SECONDS = 0.2


class LegFailedError(MiniGPTError):
    """A process ended otherwise than it was told to, and what it left behind is worth a look."""


def run_leg(
    name: str,
    leg: Leg,
    steps: int,
    interrupt: Interrupt,
    *,
    environment: Mapping[str, str],
    command: Sequence[str] = COMMAND,
) -> float:
    """Train `leg` in a process of its own, which prints into NAME.log beside the run's folder; the seconds it took.

    Raises:
        Interrupted: by a signal; the process is gone.
        MiniGPTError: it was refused, or stopped by the monitor before its time.
        LegFailedError: it ended in any other way that it was not told to.
    """
    folder, started_at = Path(leg.folder), time.monotonic()
    log = folder.with_name(f"{name.replace(' ', '_')}.log")
    with log.open("w", encoding="utf-8") as output:
        # Its own session: Ctrl-C is this process's to handle, and killing the group takes compiler workers along.
        process = subprocess.Popen(
            [*command, leg.as_argument()],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment),
            start_new_session=True,
        )
    try:
        _watch(process, name, folder / METRICS_NAME, steps, interrupt)
    finally:
        _end(process)
    if process.returncode != leg.expected_exit:
        raise _failure(name, process.returncode, log)
    return time.monotonic() - started_at


def _watch(
    process: subprocess.Popen[bytes], name: str, metrics: Path, steps: int, interrupt: Interrupt
) -> None:
    """Wait for the process, with a bar where somebody watches."""
    with tqdm(
        desc=name, total=steps, unit="step", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty()
    ) as bar:
        # Asked for, not raised by the signal: that could be in the midst of starting the process, and lose it.
        while not interrupt:
            try:
                process.wait(timeout=_POLL_SECONDS)
                return
            except subprocess.TimeoutExpired:
                if not bar.disable and metrics.is_file():
                    bar.update(metrics.read_bytes().count(b"\n") - bar.n)
    raise Interrupted


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of the process or of what it has started goes on."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        process.kill()
    process.wait()


def _failure(name: str, code: int, log: Path) -> MiniGPTError:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line]
    if code == USER_ERROR:
        errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
        return MiniGPTError("\n".join(errors) or f"the {name} run was refused")
    if code == STOPPED_BY_MONITOR:
        verdict = next((line for line in said if line.startswith("Verdict: ")), "it gave no reason")
        return MiniGPTError(
            f"the monitor stopped the {name} run before its steps were done ({verdict}): mend that first, "
            "or give fewer --steps"
        )
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return LegFailedError(
        f"the {name} run {how}: {said[-1] if said else 'it said nothing'} (all it printed is in {log})"
    )
