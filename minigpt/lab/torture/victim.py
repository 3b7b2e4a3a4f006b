"""A process that runs `minigpt` and may be killed: forked from one that has imported everything, or a fresh one."""

import ctypes
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo  # what the first step would import; forked processes find it done

import minigpt
from minigpt.lab.torture import seccomp
from minigpt.lab.torture.whereabouts import Seat
from minigpt.training import pretrain as _pretrain  # noqa: F401 - the same

PACKAGE_ROOT = Path(minigpt.__file__).parents[1]
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
Prelude = Callable[[], None]
"""What a process does before it runs `minigpt`: spoil its data, or plant a defect."""


@dataclass(frozen=True)
class Surroundings:
    """Where a process runs: its current folder, its cache, and the file that its lines go to."""

    folder: Path
    cache: Path
    printed: Path

    def environment(self) -> dict[str, str]:
        """The variables that differ from this process's."""
        return {
            "MINIGPT_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(PACKAGE_ROOT),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }


@dataclass(frozen=True)
class Victim:
    """A running process; `listener` is where its file calls are held up, if they are."""

    pid: int
    listener: int | None


def forked(
    arguments: list[str],
    at: Surroundings,
    seat: Seat,
    *,
    held_up: bool = False,
    prelude: Prelude | None = None,
) -> Victim:
    """`minigpt ARGUMENTS` in a fork of this process, which must have no other thread."""
    seat.clear()
    ours, its = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            _settle_in(at)
            seat.watch_this_thread()
            if prelude is not None:
                prelude()
            if held_up:
                seccomp.hold_up_calls(its)
            code = _run_minigpt(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Nothing of the process that it was forked from is cleaned up here.
            os._exit(code)
    its.close()
    try:
        return Victim(pid, _listener_from(ours) if held_up else None)
    finally:
        ours.close()


def fresh(arguments: list[str], at: Surroundings) -> Victim:
    """`python -m minigpt ARGUMENTS`, as a user types it."""
    with at.printed.open("ab") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "minigpt", *arguments],
            cwd=at.folder,
            env=os.environ | at.environment(),
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    # It is waited for by its number, like the others.
    process.returncode = 0
    return Victim(process.pid, None)


def _run_minigpt(arguments: list[str]) -> int:
    """`python -m minigpt ARGUMENTS` in this process; its exit code."""
    sys.argv = ["minigpt", *arguments]
    try:
        runpy.run_module("minigpt", run_name="__main__", alter_sys=True)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


def _settle_in(at: Surroundings) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    printed = os.open(at.printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(printed, standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(at.folder)
    os.environ.update(at.environment())
    torch.set_num_threads(1)


def _listener_from(ours: socket.socket) -> int:
    _, (listener, *_), _, _ = socket.recv_fds(ours, 1, 1)
    return int(listener)
