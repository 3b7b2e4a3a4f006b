"""The command line, given hostile files: each command in a process of its own, with little memory, time and a watch.

One process imports everything and forks for each command: an import of torch costs seconds, a fork nothing.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
MEMORY_BYTES = 2 << 30
"""More than the imports took, that a command may reserve."""
SECONDS = 30
ESCAPE = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"
"""Would rename a terminal, clear it, colour it, and turn the order of what follows around."""

_SERVER = """
import json, os, resource, signal, sys, time, traceback
import minigpt.cli.main, minigpt.training.pretrain, minigpt.evaluation.saved, minigpt.training.replay
import minigpt.training_monitor.verdict, minigpt.training_monitor.records.registry, minigpt.planning.preset
import minigpt.training_monitor.report.text, minigpt.config.load, minigpt.lab.drill.drill
import minigpt.training.verify.place, minigpt.lab.verify_resume.verify
import tensorboard.compat.proto.event_pb2, torch._inductor

WATCHED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "socket.bind",
           "socket.getaddrinfo", "socket.sendto", "exec_py", "webbrowser.open", "ctypes.dlopen", "pty.spawn")
ROOT = os.path.dirname(os.path.dirname(minigpt.__file__))
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.link", "os.symlink", "os.chmod")

def asks_for_versions(event, arguments):
    "Whether it is one of the fixed commands by which a run takes down what it was computed with."
    command = list(arguments[1]) if event == "subprocess.Popen" else []
    return (
        command in (["g++", "--version"], ["clang++", "--version"])
        or command[:4] == ["git", "-C", ROOT, "rev-parse"]
        or command[:5] == ["git", "--no-optional-locks", "-C", ROOT, "status"]
        or command[:2] == ["nvidia-smi", "--query-gpu=driver_version"]
    )

def is_itself(event, arguments):
    "Whether the library that is opened is this very program: the allocator that it runs with already."
    return event == "ctypes.dlopen" and arguments == (None,)

def child(order, seen):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + order["memory"],) * 2)
    os.chdir(order["cwd"])
    out, err = (os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err"))
    os.dup2(out, 1), os.dup2(err, 2)
    log = open(seen, "w", buffering=1)
    def watch(event, arguments):
        if event in WATCHED and not asks_for_versions(event, arguments) and not is_itself(event, arguments):
            log.write(json.dumps([event, repr(arguments)[:300]]) + "\\n")
        elif event in CHANGING:
            log.write(json.dumps(["change", *[str(each) for each in arguments[:2]]]) + "\\n")
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            log.write(json.dumps(["change", os.fsdecode(arguments[0])]) + "\\n")
    sys.addaudithook(watch)
    code = 1
    try:
        code = minigpt.cli.main.run(order["arguments"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    order = json.loads(line)
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        child(order, order["seen"])
    status, late = None, False
    while status is None:
        done, found = os.waitpid(pid, os.WNOHANG)
        if done:
            status = found
        elif time.monotonic() - began > order["seconds"]:
            late = True
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        else:
            time.sleep(0.005)
    print(json.dumps({"status": os.waitstatus_to_exitcode(status), "late": late}), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Exit code; below zero: killed by that signal."""
    out: str
    err: str
    late: bool
    """Whether it had to be ended because it took too long."""
    events: list[list[str]]
    """Processes, connections and listeners that it began (name, what)."""
    changes: list[str]
    """Paths that it opened for writing, renamed, made or removed."""


class Commands:
    """Runs `minigpt` commands one after another; close it in the end."""

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        self._scratch = scratch
        self.cache = scratch / "cache"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(REPOSITORY),
                "HF_HUB_OFFLINE": "1",
                "MINIGPT_CACHE": str(self.cache),
            },
        )

    def run(self, *arguments: str | Path, cwd: Path | None = None, memory: int = MEMORY_BYTES) -> Outcome:
        """The outcome of `minigpt ARGUMENTS`."""
        place = cwd or self._scratch
        paths = {name: self._scratch / f".{name}" for name in ("out", "err", "seen")}
        order: dict[str, Any] = {name: str(path) for name, path in paths.items()}
        order |= {
            "arguments": [str(each) for each in arguments],
            "cwd": str(place),
            "memory": memory,
            "seconds": SECONDS,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        out, err, seen = (path.read_text(encoding="utf-8", errors="replace") for path in paths.values())
        events = [json.loads(line) for line in seen.splitlines()]
        return Outcome(
            answer["status"],
            out,
            err,
            answer["late"],
            [event for event in events if event[0] != "change"],
            [path for event in events if event[0] == "change" for path in event[1:]],
        )

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def refused(outcome: Outcome) -> str:
    """The one line with which a command refused a file; fails where it did anything else."""
    told = f"exit code {outcome.code}, late {outcome.late}\n{outcome.out}\n{outcome.err}\n{outcome.events}"
    assert outcome.code == 2, told
    assert "Traceback" not in outcome.err, told
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, told
    assert len(lines[0]) < 1000, told
    assert outcome.err.isprintable() or outcome.err.replace("\n", "").isprintable(), told
    assert not outcome.events, told
    return lines[0]


def told_damaged(outcome: Outcome) -> str:
    """What `minigpt verify` said of files that are not as they should be; fails where it did anything else."""
    told = f"exit code {outcome.code}, late {outcome.late}\n{outcome.out}\n{outcome.err}\n{outcome.events}"
    assert outcome.code == 2, told
    assert outcome.err == "", told
    assert outcome.out.splitlines()[-1].startswith("damaged: "), told
    assert outcome.out.replace("\n", "").isprintable(), told
    assert not outcome.events, told
    return outcome.out
